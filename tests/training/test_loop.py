import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relam_jax.agents import replay
from relam_jax.agents.sac import SACConfig, make_sac
from relam_jax.training.config import TrainConfig
from relam_jax.training.loop import check_finite, make_steps, over_seeds, store


@pytest.mark.parametrize(
    "reward,observation",
    [("relam", "keypoints+proprio"), ("dacfo", "keypoints+proprio"), ("relam", "rgb")],
)
def test_act_and_learn_are_traced_exactly_once_in_a_run(
    anticipation, records_folder, tmp_path, monkeypatch, reward, observation
):
    from relam_jax.training import loop

    traces = {"act": 0, "update": 0, "discriminate": 0}
    original, imitation = loop.make_sac, loop.make_imitation

    def counted(*args):
        agent = original(*args)

        def act(*a):
            traces["act"] += 1
            return agent.act(*a)

        def update(*a):
            traces["update"] += 1
            return agent.update(*a)

        return agent._replace(act=act, update=update)

    def counted_imitation(*args):
        made, frames = imitation(*args)

        def update(*a):
            traces["discriminate"] += 1
            return made.update(*a)

        return made._replace(update=update), frames

    monkeypatch.setattr(loop, "make_sac", counted)
    monkeypatch.setattr(loop, "make_imitation", counted_imitation)
    config = TrainConfig(
        task="drawer_open",
        data=str(records_folder),
        out=str(tmp_path),
        reward=reward,
        observation=observation,
        num_envs=2,
        total_env_steps=360,
        learning_starts=60,
        episode_length=60,
        eval_every=120,
        eval_episodes=2,
        sac=SACConfig(batch_size=4 if observation == "rgb" else 256),
    )
    loop.train(config, anticipation)
    assert traces == {"act": 1, "update": 1, "discriminate": int(reward == "dacfo")}
    logged = (tmp_path / "train.csv").read_text().split("\n")[0].split(",")
    assert ("discriminator_loss" in logged) == (reward == "dacfo")


def test_nan_is_named():
    with pytest.raises(FloatingPointError, match="after 7 env_steps in: critic_loss"):
        check_finite({"q": 1.0, "critic_loss": float("nan")}, 7)


def test_seeds_are_independent_of_each_other():
    """A seed learns the same alone and beside others, from its own data and randomness."""
    agent = make_sac(TrainConfig().sac, 3, 2)
    rng = np.random.default_rng(0)

    def rows(seeds):
        x = rng.normal(size=(seeds, 32, 3)).astype(np.float32)
        return replay.Transition(
            x, x[..., :2], x[..., 0], np.ones_like(x[..., 0]), x[:, ::-1].copy()
        )

    data = jax.tree.map(jnp.asarray, rows(2))
    batches = jax.tree.map(lambda x: x[:, None], data)
    learner = jax.vmap(agent.init)(jax.random.split(jax.random.key(0), 2))
    both = jax.jit(over_seeds(agent.update))(learner, batches)[0]
    second = jax.tree.map(lambda x: x[1:], (learner, batches))
    alone = jax.jit(over_seeds(agent.update))(*second)[0]
    for a, b in zip(jax.tree.leaves(both.actor), jax.tree.leaves(alone.actor), strict=True):
        np.testing.assert_array_equal(a[1:], b)


def test_store_keeps_seeds_apart():
    buffer = jax.vmap(lambda _: replay.init(4, 1, 1))(jnp.arange(2))
    x = jnp.arange(6.0)[:, None]  # seed-major: three environments a seed
    buffer = store(buffer, x, x, x[:, 0], x, x[:, 0] > 3)
    np.testing.assert_array_equal(buffer.data.reward[:, :3], [[0, 1, 2], [3, 4, 5]])
    assert (buffer.data.discount[:, :3] == 1).all()
    np.testing.assert_array_equal(buffer.last[:, :3], [[0, 0, 0], [0, 1, 1]])


def test_act_gives_every_seed_its_own_noise():
    config = TrainConfig(num_seeds=2)
    agent = make_sac(config.sac, 3, 2)
    act, mode, _ = make_steps(config, agent)
    actor = jax.vmap(agent.init)(jnp.stack([jax.random.key(0)] * 2)).actor
    action, _ = act(actor, jnp.zeros((4, 3)), jax.random.key(1))
    assert action.shape == (2, 2, 2) and len(np.unique(np.asarray(action))) == 8
    assert np.ptp(np.asarray(mode(actor, jnp.zeros((2, 2, 3)))), axis=(0, 1)).max() == 0
