"""SAC on problems whose optimum is known."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relam_jax.agents import replay
from relam_jax.agents.networks import sample_squashed
from relam_jax.agents.sac import SACConfig, make_sac


def learn(config, transition, num_updates=400, seed=0):
    """Train on a fixed buffer of transitions."""
    obs_dim, action_dim = transition.obs.shape[1], transition.action.shape[1]
    agent = make_sac(config, obs_dim, action_dim)
    size = transition.reward.shape[0]
    buffer = replay.add(replay.init(size, obs_dim, action_dim), transition)
    batches = replay.sample(buffer, jax.random.key(seed), (num_updates, config.batch_size))
    learner, info = jax.jit(agent.update)(agent.init(jax.random.key(seed)), batches)
    return agent, learner, info


def bandit(best, size=4096):
    """One-step problem: the reward falls with the distance of the action from `best`."""
    key = jax.random.key(1)
    action = jax.random.uniform(key, (size, 1), minval=-1.0)
    obs = jnp.zeros((size, 2))
    reward = 1 - jnp.abs(action[:, 0] - best)
    return replay.Transition(obs, action, reward, jnp.zeros(size), obs)


@pytest.mark.parametrize("best", [-0.6, 0.3])
def test_the_policy_finds_the_best_action(best):
    config = SACConfig(widths=(32, 32), learning_rate=3e-3, batch_size=128)
    agent, learner, _ = learn(config, bandit(best))
    assert float(agent.mode(learner.actor, jnp.zeros(2))[0]) == pytest.approx(best, abs=0.1)


def test_smoothness_brings_actions_of_neighbouring_states_together():
    """The best action is the sign of the state, and states alternate: a policy that swings."""
    side_key, action_key = jax.random.split(jax.random.key(1))
    side = jnp.where(jax.random.bernoulli(side_key, shape=(4096, 1)), 1.0, -1.0)
    action = jax.random.uniform(action_key, (4096, 1), minval=-1.0)
    reward = 1 - jnp.abs(action - 0.8 * side)[:, 0]
    rows = replay.Transition(side, action, reward, jnp.zeros(4096), -side)
    gaps = []
    for weight in (0.0, 1.0):
        config = SACConfig(widths=(32, 32), learning_rate=3e-3, batch_size=128, smoothness=weight)
        agent, learner, _ = learn(config, rows)
        here, there = (float(agent.mode(learner.actor, jnp.full(1, x))[0]) for x in (1.0, -1.0))
        gaps.append(here - there)
    assert gaps[0] > 1.2 and gaps[1] < 0.6 * gaps[0], gaps


def test_the_averaged_actor_follows_the_actor():
    gaps = []
    for rate in (0.0, 0.5, 1.0):
        _, learner, _ = learn(SACConfig(widths=(8, 8), average_rate=rate), bandit(0.3))
        pairs = zip(*map(jax.tree.leaves, (learner.average_actor, learner.actor)), strict=True)
        gaps.append(sum(float(jnp.abs(a - b).sum()) for a, b in pairs))
    assert gaps[0] > gaps[1] > gaps[2] == 0


@pytest.mark.parametrize("discount,value", [(1.0, 10.0), (0.0, 1.0)])
def test_value_bootstraps_at_a_time_limit_and_not_at_termination(discount, value):
    size = 512
    action = jax.random.uniform(jax.random.key(0), (size, 1), minval=-1.0)
    obs = jnp.zeros((size, 1))
    rows = replay.Transition(obs, action, jnp.ones(size), jnp.full(size, discount), obs)
    config = SACConfig(
        widths=(32, 32), learning_rate=3e-3, gamma=0.9, tau=0.05, batch_size=64, init_alpha=1e-6
    )
    _, _, info = learn(config, rows, num_updates=800)
    _, _, late = learn(config, rows, num_updates=1600)
    # the mean over a run lags; its second half is near the fixed point r / (1 − γ · discount)
    assert float(2 * late["q"] - info["q"]) == pytest.approx(value, rel=0.1)


def test_temperature_holds_the_target_entropy():
    config = SACConfig(widths=(32, 32), learning_rate=1e-2, batch_size=64, target_entropy=-1.0)
    _, a, _ = learn(config, bandit(0.0), num_updates=1500)
    agent = make_sac(config, 2, 1)
    keys = jax.random.split(jax.random.key(3), 2000)
    from relam_jax.agents.networks import Actor

    mean, log_std = Actor(1, config.widths).apply(a.actor, jnp.zeros(2))
    log_prob = jax.vmap(lambda k: sample_squashed(k, mean, log_std)[1])(keys)
    assert float(-log_prob.mean()) == pytest.approx(-1.0, abs=0.4)
    assert agent.act(a.actor, jnp.zeros(2), keys[0]).shape == (1,)


def test_log_probability_of_the_squashed_gaussian_integrates_to_one():
    mean, log_std = jnp.array([0.4]), jnp.array([-0.3])
    actions, log_prob = jax.vmap(lambda k: sample_squashed(k, mean, log_std))(
        jax.random.split(jax.random.key(0), 100_000)
    )
    # E[1 / p(a)] over the support (−1, 1) is its length, 2, where p covers it
    inside = jnp.abs(actions[:, 0]) < 0.95
    assert float((jnp.exp(-log_prob) * inside).mean()) == pytest.approx(1.9, rel=0.05)


def test_update_is_traced_once_and_seeds_differ():
    config, traces = SACConfig(widths=(16, 16), batch_size=8), []
    agent = make_sac(config, 2, 1)
    buffer = replay.add(replay.init(64, 2, 1), bandit(0.2, 64))

    @jax.jit
    def step(learner, key):
        traces.append(1)
        batches = jax.vmap(partial(replay.sample, buffer, shape=(3, 8)))(jax.random.split(key, 2))
        return jax.vmap(agent.update)(learner, batches)[0]

    learner = jax.vmap(agent.init)(jax.random.split(jax.random.key(0), 2))
    for i in range(3):
        learner = step(learner, jax.random.key(i))
    assert len(traces) == 1, "a changed type of a leaf would trace again"
    kernels = jax.tree.leaves(learner.actor)
    assert any(not np.allclose(k[0], k[1]) for k in kernels)


def test_swept_hyper_parameters_are_leaves():
    agent = make_sac(SACConfig(widths=(16, 16), batch_size=8), 2, 1)
    learner = jax.vmap(agent.init)(jnp.stack([jax.random.key(0)] * 2))
    rates = learner.hyper._replace(learning_rate=jnp.array([0.0, 1e-2]))
    batches = replay.sample(
        replay.add(replay.init(64, 2, 1), bandit(0.2, 64)), jax.random.key(0), (2, 3, 8)
    )
    after, _ = jax.jit(jax.vmap(agent.update))(learner._replace(hyper=rates), batches)
    before, now = jax.tree.leaves(learner.actor), jax.tree.leaves(after.actor)
    assert all(np.array_equal(b[0], a[0]) for b, a in zip(before, now, strict=True))
    assert any(not np.array_equal(b[1], a[1]) for b, a in zip(before, now, strict=True))
