from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relam_jax.agents import replay


def rows(values):
    v = jnp.asarray(values, jnp.float32)
    return replay.Transition(v[:, None], v[:, None], v, jnp.ones_like(v), v[:, None])


def test_the_oldest_are_overwritten():
    buffer = replay.init(6, 1, 1)
    assert not replay.can_sample(buffer, 1)
    for start in (0, 2, 4, 6):
        buffer = replay.add(buffer, rows([start, start + 1]))
    assert sorted(np.asarray(buffer.data.reward)) == [2, 3, 4, 5, 6, 7]
    assert buffer.size == 6 and buffer.position == 2


def test_sampling_draws_only_what_was_stored_and_all_of_it():
    buffer = replay.add(replay.init(100, 1, 1), rows([5, 6, 7]))
    batch = replay.sample(buffer, jax.random.key(0), (50, 4))
    assert batch.obs.shape == (50, 4, 1)
    assert set(np.asarray(batch.reward).ravel()) == {5.0, 6.0, 7.0}
    np.testing.assert_array_equal(batch.obs[..., 0], batch.reward)


@pytest.mark.parametrize("n_step", [1, 2, 3])
@pytest.mark.parametrize("blocks", [3, 9])  # before and after the ring is full
@pytest.mark.parametrize("paid_now", [False, True])
def test_n_steps_are_summed_within_an_episode_and_what_is_stored(n_step, blocks, paid_now):
    """Rewards are the stored ones, or, `paid_now`, made out of obs and next_obs when drawn."""
    num_envs, capacity, gamma = 2, 10, 0.5
    rng = np.random.default_rng(blocks)
    reward, last = rng.normal(size=(blocks, num_envs)), rng.random((blocks, num_envs)) < 0.4
    name = np.arange(blocks * num_envs).reshape(blocks, num_envs)  # a row by what obs says
    buffer = replay.init(capacity, 1, 1)
    for t in range(blocks):
        obs, paid = jnp.float32(name[t][:, None]), jnp.float32(reward[t])
        row = replay.Transition(obs, obs, paid, jnp.ones(num_envs), obs + num_envs)
        buffer = replay.add(buffer, row, jnp.asarray(last[t]))
    draw = partial(replay.sample, shape=(200,), n_step=n_step, num_envs=num_envs)
    if paid_now:
        table = jnp.float32(reward).ravel()
        buffer = buffer._replace(data=buffer.data._replace(reward=jnp.full(capacity, jnp.nan)))

        def pay(obs, next_obs):
            return jnp.where(next_obs == obs + num_envs, table[obs.astype(int)], jnp.nan)[..., 0]

        draw = partial(draw, pay=pay)
    batch = jax.jit(draw)(buffer, jax.random.key(0), gamma=gamma)
    assert len(np.unique(batch.obs)) == min(capacity, blocks * num_envs)
    for obs, paid, discount, after in zip(
        *(np.asarray(x).ravel() for x in (batch.obs, batch.reward, batch.discount, batch.next_obs)),
        strict=True,
    ):
        t, env = divmod(int(obs), num_envs)
        steps = 1
        while steps < n_step and not last[t + steps - 1, env] and t + steps < blocks:
            steps += 1
        expected = sum(gamma**k * reward[t + k, env] for k in range(steps))
        np.testing.assert_allclose(paid, expected, rtol=1e-5)
        assert discount == gamma ** (steps - 1) and after == obs + steps * num_envs
