"""SAC with frames: who teaches the encoder, and that what only the frames show is learnt."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relam_jax.agents import replay
from relam_jax.agents.frames import Sight
from relam_jax.agents.networks import Convolution, Encoder
from relam_jax.agents.sac import SACConfig, make_sac

SHAPE = (16, 16, 3)
CONFIG = SACConfig(widths=(16, 16), batch_size=8, learning_rate=3e-3)


@pytest.mark.parametrize("size,stride", [(9, 1), (9, 2), (10, 2), (84, 2)])
def test_the_convolution_is_one(size, stride):
    x = jax.random.normal(jax.random.key(0), (2, size, size, 4))
    layer = Convolution(5, stride)
    params = layer.init(jax.random.key(1), x)
    weights = params["params"]["Dense_0"]["kernel"].reshape(3, 3, 4, 5)
    expected = jax.lax.conv_general_dilated(
        x, weights, (stride, stride), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(layer.apply(params, x), expected, atol=1e-4)


def test_the_encoder_is_of_the_size_of_drq_v2():
    blank = jnp.zeros((2, 84, 84, 6), jnp.uint8)
    params = Encoder().init(jax.random.key(0), blank)
    assert Encoder().apply(params, blank).shape == (2, 50)
    kernels = [x.shape for x in jax.tree.leaves(params) if x.ndim == 2]
    assert kernels == [(54, 32), (288, 32), (288, 32), (288, 32), (35 * 35 * 32, 50)]


@cache
def learning():
    """An agent, its compiled update, its learner, one batch of transitions and the frames that they
    number."""
    agent = make_sac(CONFIG, 2, 1, SHAPE)
    shown = jax.random.randint(jax.random.key(1), (20, *SHAPE), 0, 256).astype(jnp.uint8)
    numbers = jax.random.randint(jax.random.key(2), (2, 1, 8), 0, 20)
    vector, action = jnp.ones((1, 8, 2)), jnp.linspace(-0.9, 0.9, 8).reshape(1, 8, 1)
    obs, next_obs = (Sight(vector, n) for n in numbers)
    batch = replay.Transition(obs, action, action[..., 0], jnp.ones((1, 8)), next_obs)
    return agent, jax.jit(agent.update), agent.init(jax.random.key(3)), batch, shown


def blind(network):
    """With no weight on the encoder's features, which come last in an observation of two."""
    network = jax.tree.map(jnp.copy, network)
    kernel = network["params"]["MLP_0"]["Dense_0"]["kernel"]
    rows = jnp.arange(len(kernel))[:, None]
    features = (rows >= 2) & (rows < 2 + Encoder.features)
    network["params"]["MLP_0"]["Dense_0"]["kernel"] = jnp.where(features, 0, kernel)
    return network


def moved(before, after):
    pairs = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    return [bool(np.any(np.asarray(a) != np.asarray(b))) for a, b in pairs]


@pytest.mark.parametrize("critics_see,policy_sees", [(True, False), (False, True)])
def test_the_encoder_learns_from_the_critics_alone(critics_see, policy_sees):
    _, update, learner, batch, shown = learning()
    if not critics_see:
        critics = tuple(blind(c) for c in learner.critics)
        learner = learner._replace(critics=critics)
    if not policy_sees:
        actor = learner.actor | {"policy": blind(learner.actor["policy"])}
        learner = learner._replace(actor=actor)
    after, _ = update(learner, batch, shown)
    change = moved(learner.actor["encoder"], after.actor["encoder"])
    assert all(change) if critics_see else not any(change)
    assert any(moved(learner.actor["policy"], after.actor["policy"]))
    assert any(moved(learner.critics, after.critics))


def test_images_are_shifted_where_they_are_learnt_from_and_nowhere_else():
    """The policy always acts alike; what is learnt of a batch depends on the randomness of the
    shift, unless the images are such that no shift changes them."""
    agent, update, learner, batch, shown = learning()
    sight = Sight(jnp.ones((20, 2)), shown)
    np.testing.assert_array_equal(
        agent.mode(learner.actor, sight), agent.mode(learner.actor, sight)
    )
    flat = jnp.broadcast_to(shown[:, :1, :1], shown.shape)  # images that no shift changes
    learnt = [
        [update(learner._replace(key=jax.random.key(k)), batch, images)[1] for k in (0, 1)]
        for images in (shown, flat)
    ]
    (a, b), (c, d) = learnt
    assert a["q"] != b["q"] and c["q"] == d["q"]


def test_the_policy_finds_what_only_the_frames_show():
    """A bandit whose best action is written in the picture: dark −0.5, bright 0.5."""
    size, config = 512, SACConfig(widths=(32, 32), batch_size=64, learning_rate=1e-3)
    rng = np.random.default_rng(0)
    kind = np.arange(20) % 2
    noise = rng.integers(0, 60, (20, *SHAPE))
    shown = jnp.asarray(noise + 150 * kind[:, None, None, None], jnp.uint8)
    number, action = rng.integers(0, 20, size), rng.uniform(-1, 1, (size, 1)).astype(np.float32)
    obs = Sight(jnp.zeros((size, 2)), jnp.asarray(number, jnp.int32))
    reward = jnp.asarray(1 - np.abs(action[:, 0] - (kind[number] - 0.5)), jnp.float32)
    rows = replay.Transition(obs, jnp.asarray(action), reward, jnp.zeros(size), obs)
    buffer = replay.add(replay.init(size, 2, 1, with_frames=True), rows)
    agent = make_sac(config, 2, 1, SHAPE)
    batches = replay.sample(buffer, jax.random.key(0), (300, 64), n_step=1)
    learner, _ = jax.jit(agent.update)(agent.init(jax.random.key(1)), batches, shown)
    best = agent.mode(learner.actor, Sight(jnp.zeros((20, 2)), shown))[:, 0]
    np.testing.assert_allclose(best, kind - 0.5, atol=0.2)
