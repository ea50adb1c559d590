"""Frames: moved at random as said, and found again by the numbers that the replay keeps."""

import jax
import jax.numpy as jnp
import numpy as np

from relam_jax.agents import frames
from relam_jax.agents.frames import Sight


def test_random_shift_moves_images_by_whole_pixels_and_repeats_their_edge():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (300, 12, 10, 6), dtype=np.uint8)
    moved = np.asarray(frames.random_shift(jax.random.key(0), jnp.asarray(images)))
    assert moved.dtype == np.uint8 and moved.shape == images.shape
    padded, found = np.pad(images, ((0, 0), (4, 4), (4, 4), (0, 0)), mode="edge"), []
    for image, wide in zip(moved, padded, strict=True):
        places = [(y, x) for y in range(9) for x in range(9)]
        same = [np.array_equal(image, wide[y : y + 12, x : x + 10]) for y, x in places]
        assert sum(same) == 1  # both views by the same way
        found.append(places[same.index(True)])
    assert {y for y, _ in found} == {x for _, x in found} == set(range(9))
    assert len(set(found)) > 60  # of 81: the two directions are drawn apart


def test_a_film_shows_what_was_stored_for_as_long_as_the_replay_keeps_it():
    """Steps of three environments; one becomes unstable now and then and ends early."""
    num_envs, kept, limit, rng = 3, 7, 4, np.random.default_rng(0)
    count = iter(range(1, 10_000))

    def shoot():
        """Frames that nobody has seen before."""
        values = [next(count) for _ in range(num_envs)]
        return np.stack([np.divmod(v, 256) for v in values]).astype(np.uint8).reshape(-1, 1, 1, 2)

    now = shoot()
    film = frames.init(frames.film_length(kept, limit), now)
    rows, age = [], np.zeros(num_envs, int)
    for _ in range(60):
        final, age = shoot(), age + 1
        unstable = (np.arange(num_envs) == 1) & (rng.random(num_envs) < 0.3) & (age < limit)
        ended = unstable | (age == limit)
        after = np.where(ended[:, None, None, None], shoot(), final)
        sights = [Sight(np.full((num_envs, 1), i), x) for i, x in enumerate((now, final, after))]
        film, obs, final_obs = frames.record(film, *sights, ended, limit)
        assert obs.vector[0, 0] == 0 and final_obs.vector[0, 0] == 1
        led_to = np.where(unstable[:, None, None, None], now, final)
        rows = [*rows, (obs.frames, now, final_obs.frames, led_to)][-kept:]
        ring = np.asarray(film.frames)
        for shown, before, led, to in rows:
            np.testing.assert_array_equal(ring[np.asarray(shown)], before)
            np.testing.assert_array_equal(ring[np.asarray(led)], to)
        now, age = after, np.where(ended, 0, age)
    assert len(ring) == num_envs * (kept + 1 + 2)


def test_views_are_stacked_as_channels():
    images = np.arange(2 * 2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 2, 4, 5, 3)
    both = frames.stacked(images)
    assert both.shape == (2, 4, 5, 6)
    np.testing.assert_array_equal(both[..., :3], images[:, 0])
    np.testing.assert_array_equal(both[..., 3:], images[:, 1])
