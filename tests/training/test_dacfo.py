"""The discriminator's reward, on committed demonstrations and the real simulator."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relam_jax.agents.dacfo import DACfOConfig, make_dacfo
from relam_jax.agents.frames import Sight, stacked
from relam_jax.anticipation.plan import Plan, make_planner
from relam_jax.keypoints.records import read_records
from relam_jax.keypoints.selection import SelectionConfig
from relam_jax.training.config import TrainConfig
from relam_jax.training.demonstrations import demonstration_frames, shrunk
from relam_jax.training.imitation import (
    box_middle,
    demonstration_pairs,
    demonstration_places,
    frame_numbers,
    make_imitation,
)
from relam_jax.training.task_env import make_goal_env, make_task_env
from tests.keypoints.synthetic import record

FEATURES = 8
"""V E 2."""


@pytest.fixture(scope="module")
def clips(anticipation, records_folder):
    """Pairs of five demonstrations, (clip, moment, 2, F)."""
    records = read_records(records_folder)
    places = demonstration_places(records, make_planner(anticipation), anticipation.selection)
    return demonstration_pairs(places, 3, 150).reshape(5, -1, 2, FEATURES)


@pytest.fixture(scope="module")
def episodes(anticipation):
    """Observations of four episodes of the scripted expert, and of random actions, (N, T, D)."""
    env = make_goal_env(TrainConfig(reward="dacfo"), anticipation, 4, "train")
    rng, out = np.random.default_rng(0), []
    for act in (env.env.scripted_actions, lambda: rng.uniform(-1, 1, (4, 4)).astype(np.float32)):
        obs = [env.reset(init_states=np.arange(4))]
        obs += [env.step(act()).final_obs for _ in range(40)]
        out.append(np.stack(obs, axis=1))
    env.env.close()
    return out


def test_places_of_demonstrations_and_simulator_can_be_compared(clips, episodes):
    """Its home pose is the same in all; where the drawer ends does not depend on who filmed it."""
    home, start = clips[:, 0, 0, [0, 1, 4, 5]], episodes[0][:, 0, -FEATURES:][:, [0, 1, 4, 5]]
    np.testing.assert_allclose(start, np.broadcast_to(home[0], start.shape), atol=0.004)
    pulled = clips[:, -1, 1] - clips[:, 0, 0]
    in_simulator = (episodes[0][:, -1] - episodes[0][:, 0])[:, -FEATURES:]
    drawer = [2, 3, 6, 7]
    np.testing.assert_allclose(in_simulator.mean(0)[drawer], pulled.mean(0)[drawer], atol=0.02)
    assert np.abs(pulled.mean(0)[drawer]).max() > 0.1


def test_the_reward_ranks_a_demonstration_above_a_reversed_and_a_random_one(clips, episodes):
    expert, chance = episodes
    dacfo = make_dacfo(DACfOConfig(), clips[:4].reshape(-1, 2, FEATURES))
    now, then = (jnp.asarray(x.reshape(-1, x.shape[-1])) for x in (chance[:, :-1], chance[:, 1:]))
    rows = np.random.default_rng(0).integers(len(now), size=(400, 128))
    state, info = jax.jit(dacfo.update)(dacfo.init(jax.random.key(0)), now[rows], then[rows])
    assert info["logit_demonstrations"] > 0 > info["logit_policy"]
    held_out = jnp.asarray(clips[4])  # never trained on
    paid = {
        "demonstration": dacfo.reward(state, held_out[:, 0], held_out[:, 1]),
        "reversed": dacfo.reward(state, held_out[:, 1], held_out[:, 0]),
        "random": dacfo.reward(state, now, then),
        "expert": dacfo.reward(state, *map(jnp.asarray, (expert[:, :-1], expert[:, 1:]))),
    }
    mean = {name: float(np.mean(values)) for name, values in paid.items()}
    assert mean["demonstration"] > mean["reversed"] + 0.3, mean
    assert mean["demonstration"] > mean["random"] + 1, mean
    assert mean["expert"] > mean["random"] + 1, mean


@pytest.fixture(scope="module")
def films(anticipation, records_folder):
    """Frames of five demonstrations, a list; and in the simulator, of one episode of the scripted
    expert and of one of random actions; 32 px, both views."""
    videos = records_folder.parent / "drawer_open"
    demonstrations = demonstration_frames(records_folder, videos, 32, ("cam0", "cam1"))
    env = make_task_env(TrainConfig(), anticipation, 1, "train")
    rng, out = np.random.default_rng(0), []
    for act in (env.scripted_actions, lambda: rng.uniform(-1, 1, (1, 4)).astype(np.float32)):
        env.reset(init_states=np.zeros(1, int))
        env.follow(np.zeros((1, 2, 2, 1), int))
        views = []
        for _ in range(40):
            views.append([shrunk(env.render(0, view), 32) for view in range(2)])
            env.step(act())
        out.append(stacked(np.array(views)))
    env.close()
    return demonstrations, *out


def test_of_frames_too_a_demonstration_ranks_above_a_reversed_and_a_random_one(films):
    """The policy's film: random actions, and the expert's episode backwards."""
    (*known, held_out), expert, chance = films
    pairs = demonstration_pairs(frame_numbers(known), 3, 90)
    dacfo = make_dacfo(DACfOConfig(), pairs, (32, 32, 6))
    film = np.concatenate([chance, expert[::-1]])
    ends = np.arange(len(film)) % len(chance) == len(chance) - 1
    rows = jnp.asarray(np.random.default_rng(0).choice(np.flatnonzero(~ends), size=(250, 16)))
    now, then = (Sight(None, x) for x in (rows, rows + 1))
    arrays = jnp.asarray(film), jnp.asarray(np.concatenate(known))
    state, info = jax.jit(dacfo.update)(dacfo.init(jax.random.key(0)), now, then, *arrays)
    assert info["logit_demonstrations"] > 0 > info["logit_policy"]

    def paid(frames, step):
        now = np.arange(max(0, -step), len(frames) - max(0, step))
        sights = (Sight(None, jnp.asarray(x)[None]) for x in (now, now + step))
        return float(dacfo.reward(state, *sights, jnp.asarray(frames)).mean())

    mean = {
        "demonstration": paid(held_out, 3),
        "reversed": paid(held_out, -3),
        "random": paid(chance, 1),
        "expert": paid(expert, 1),
    }
    assert mean["demonstration"] > mean["reversed"] + 0.3, mean
    assert mean["demonstration"] > mean["random"] + 0.5, mean
    assert mean["expert"] > mean["random"] + 0.3, mean


def everything(points, visibility):
    """A planner that takes the first four candidates."""
    n, v, e, _, _ = points.shape
    shape = (n, v, e, 4)
    indices, valid = np.broadcast_to(np.arange(4), shape), np.ones(shape, bool)
    start, none = points[:, :, :, :4], np.zeros((n, 1, v, e, 4, 2))
    return Plan(indices, valid, start, none, np.ones(n, int), none[..., 0, 0])


def test_clips_are_held_at_their_last_frame_to_the_end_of_the_episode():
    records = [record(0, frames=20), record(1, frames=31)]
    places = demonstration_places(records, everything, SelectionConfig())
    assert [p.shape for p in places] == [(20, 8), (31, 8)]
    pairs = demonstration_pairs(places, 3, 30).reshape(2, -1, 2, 8)
    assert pairs.shape[1] == 31 - 3
    np.testing.assert_array_equal(pairs[:, 3:, 0], pairs[:, :-3, 1])
    assert (pairs[0, 20:, 1] == pairs[0, 20:, 0]).all() and (pairs[0, :16] != pairs[0, 19]).any()
    moved = records[0].tracks[0, 3, 0] - records[0].tracks[0, 0, 0]
    np.testing.assert_allclose(pairs[0, 0, 1, :2] - pairs[0, 0, 0, :2], moved, atol=1e-6)


def test_a_place_does_not_depend_on_which_points_are_followed():
    def others(points, visibility):
        plan = everything(points, visibility)
        return plan._replace(indices=plan.indices + 4, start=points[:, :, :, 4:8])

    [a], [b] = (
        demonstration_places([record(2)], plan, SelectionConfig()) for plan in (everything, others)
    )
    np.testing.assert_allclose(a, b, atol=1e-6)


def test_the_middle_of_a_box_counts_visible_points_and_is_the_images_without_any():
    points = np.array([[0.1, 0.2], [0.3, 0.8], [0.9, 0.9]]).reshape(1, 1, 1, 3, 2)
    seen = np.array([True, True, False]).reshape(1, 1, 1, 3)
    np.testing.assert_allclose(box_middle(points, seen).ravel(), [0.2, 0.5], rtol=1e-6)
    np.testing.assert_array_equal(box_middle(points, seen & False).ravel(), [0.5, 0.5])


def test_records_of_other_views_are_refused(anticipation, records_folder):
    config = TrainConfig(reward="dacfo", data=str(records_folder))
    other = replace(anticipation, view_names=("left", "right"))
    with pytest.raises(ValueError, match=r"has the views \('cam0', 'cam1'\)"):
        make_imitation(config, other)
