import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from relam_jax.anticipation.dataset import at_moments, build_examples, moments
from relam_jax.anticipation.model import AnticipationModel, ModelConfig, roll_out
from relam_jax.anticipation.plan import (
    Anticipation,
    as_tuples,
    load_anticipation,
    make_planner,
    save_anticipation,
)
from relam_jax.anticipation.train import FitConfig, fit, nearest_moment, split_clips
from relam_jax.keypoints.keyframes import KeyframeConfig
from relam_jax.keypoints.selection import EpisodeTracks, SelectionConfig
from tests.keypoints.synthetic import record

SELECTION, KEYFRAMES = SelectionConfig(num_keypoints=4), KeyframeConfig(tolerance=0.015)
FIT = FitConfig(num_steps=600, eval_every=100, batch_size=8, num_points=3)


@pytest.fixture(scope="module")
def examples():
    return build_examples([record(s) for s in range(16)], SELECTION, KEYFRAMES)


@pytest.fixture(scope="module")
def losses():
    """Of `fitted`, a number a look."""
    return []


@pytest.fixture(scope="module")
def fitted(examples, losses):
    model = ModelConfig(width=32, num_layers=2)
    return fit(examples, model, FIT, lambda step, metrics: losses.append(metrics["loss"]))


def test_examples_hold_the_keyframes_of_every_clip(examples):
    assert examples.points.shape == (16, 4, 2, 2, 12, 2)
    assert (examples.num_stages == 3).all() and (examples.frames[:, 0] == 0).all()


def test_moments_lie_around_their_keyframe_and_never_reach_its_neighbours(examples):
    times = moments(np.array([0, 20, 23, 30]), 2.0)
    np.testing.assert_allclose(times[0, [0, 4, -1]], [18.5, 20, 21.5])
    np.testing.assert_allclose(times[2], 30)  # the last is what the task is about
    assert examples.around.shape == (16, 3, 9, 2, 2, 12, 2)
    seen = examples.visibility[:, 1:]
    np.testing.assert_array_equal(examples.around[:, :, 4][seen], examples.points[:, 1:][seen])


def test_between_frames_points_are_interpolated():
    points = np.arange(5.0).reshape(5, 1, 1, 1, 1) * [0.1, 0.2]
    seen = np.ones((5, 1, 1, 1), bool)
    seen[2] = False
    tracks = EpisodeTracks(np.where(seen[..., None], points, np.nan), seen)
    found = at_moments(tracks, np.array([[1.5, 2.0, 4.0]]))
    np.testing.assert_allclose(found[0, :, 0, 0, 0], [[0.15, 0.3], [0.2, 0.4], [0.4, 0.8]])


def test_a_subgoal_is_held_against_the_moment_when_the_clip_comes_nearest():
    """One clip comes by two moments late; its points move as one, so one moment fits all."""
    path = np.linspace(0, 1, 9)[:, None] * np.array([0.4, 0.2])
    around = np.broadcast_to(path[None, None, :, None, None, None], (1, 1, 9, 1, 1, 3, 2))
    weight = np.array([True, True, False]).reshape(1, 1, 1, 1, 3)
    subgoals = np.broadcast_to(path[6] + 0.001, (1, 1, 1, 1, 3, 2)).copy()
    subgoals[..., 2, :] = 0  # does not count
    nearest = nearest_moment(jnp.asarray(subgoals), jnp.asarray(around), jnp.asarray(weight))
    np.testing.assert_allclose(nearest[0, 0, 0, 0], np.tile(path[6], (3, 1)), atol=1e-6)
    middle = nearest_moment(jnp.asarray(subgoals), jnp.asarray(around), jnp.asarray(weight), False)
    np.testing.assert_allclose(middle[0, 0, 0, 0], np.tile(path[4], (3, 1)), atol=1e-6)


def test_anticipates_clips_never_trained_on(examples, fitted, losses):
    moved = np.linalg.norm(np.diff(examples.points, axis=1), axis=-1).mean()
    assert np.max(fitted.error.free_running) < 0.2 * moved
    assert fitted.error.stop_accuracy == 1.0
    assert losses[-1] < 0.2 * losses[0]


def test_split_keeps_clips_apart():
    split = split_clips(20, FitConfig())
    assert sorted(np.concatenate(split)) == list(range(20))
    assert len(split.validation) == len(split.test) == 3
    assert split.kind == "held-out"
    assert split_clips(4, FitConfig()).kind == "training", "too few to hold any out"


def test_records_of_two_tasks_are_refused():
    other = dataclasses.replace(record(1), task="another")
    with pytest.raises(ValueError, match="one folder a task"):
        build_examples([record(0), other], SELECTION, KEYFRAMES)
    with pytest.raises(ValueError, match="make preprocess"):
        build_examples([], SELECTION, KEYFRAMES)


@pytest.fixture(scope="module")
def anticipation(examples, fitted):
    return Anticipation(
        model=ModelConfig(width=32, num_layers=2),
        selection=SELECTION,
        keyframes=KEYFRAMES,
        task="synthetic",
        view_names=examples.view_names,
        entity_names=examples.entity_names,
        num_stages=3,
        test_error=tuple(float(e) for e in fitted.error.free_running),
        group_error=as_tuples(fitted.error.by_group.tolist()),
        params=fitted.params,
    )


def test_planner_chooses_moving_points_and_reaches_the_end(anticipation, examples, fitted):
    start = examples.points[:, 0].copy()
    seen = examples.visibility[:, 0].copy()
    seen[:, :, :, 10:] = False
    start[:, :, :, 10:] = np.nan  # padding may hold anything
    plan = make_planner(anticipation)(start, seen)
    assert plan.subgoals.shape == (16, 3, 2, 2, 4, 2) and plan.valid.all()
    assert (np.asarray(plan.indices) < 10).all() and (np.asarray(plan.num_stages) == 3).all()
    np.testing.assert_allclose(plan.error, np.tile(fitted.error.by_group, (16, 1, 1, 1)), rtol=1e-5)
    true = np.take_along_axis(examples.points[:, -1], np.asarray(plan.indices)[..., None], axis=3)
    assert np.median(np.linalg.norm(plan.subgoals[:, -1] - true, axis=-1)) < 0.03


def test_saved_model_plans_the_same(anticipation, examples, tmp_path):
    save_anticipation(tmp_path / "a", anticipation)
    loaded = load_anticipation(tmp_path / "a")
    assert dataclasses.replace(loaded, params=None) == dataclasses.replace(
        anticipation, params=None
    )
    args = (examples.points[:2, 0], examples.visibility[:2, 0])
    for a, b in zip(make_planner(anticipation)(*args), make_planner(loaded)(*args), strict=True):
        np.testing.assert_array_equal(a, b)


def test_missing_and_foreign_models_are_named(anticipation, tmp_path):
    with pytest.raises(ValueError, match="no anticipation model"):
        load_anticipation(tmp_path / "none")
    save_anticipation(tmp_path / "b", anticipation)
    config = tmp_path / "b" / "config.json"
    config.write_text(config.read_text().replace('"width": 32', '"width": 48'))
    with pytest.raises(ValueError, match="train it again"):
        load_anticipation(tmp_path / "b")


def test_points_that_go_out_of_sight_are_not_chosen():
    """Half of an object's points vanish after the first frame, those on its left."""
    records = []
    for seed in range(16):
        clip = record(seed)
        object_slots = np.flatnonzero(clip.entity_id == 1)
        x = clip.tracks[:, 0, object_slots, 0]
        lost = np.zeros(clip.visibility.shape, bool)
        lost[:, 1:, object_slots] = (x < np.median(x, axis=1, keepdims=True))[:, None]
        records.append(dataclasses.replace(clip, visibility=clip.visibility & ~lost))
    examples = build_examples(records, SELECTION, KEYFRAMES)
    result = fit(examples, ModelConfig(width=32, num_layers=2), FIT)
    held_out = split_clips(16, FIT).test
    start, seen = (jnp.asarray(x[held_out]) for x in (examples.points[:, 0], examples.first_seen))
    model = AnticipationModel(ModelConfig(width=32, num_layers=2))
    in_sight = np.asarray(roll_out(model, result.params, start, seen, 3).in_sight) > 0
    right = (in_sight == examples.visibility[held_out, 0])[seen]
    assert right.mean() > 0.75
