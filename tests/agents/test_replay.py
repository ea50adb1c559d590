import jax
import jax.numpy as jnp
import numpy as np

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
