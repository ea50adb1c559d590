"""Tracked keypoints: from images alone, near the simulator's truth, and resumed bit for bit."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from preprocess_torch.config import PreprocessConfig
from preprocess_torch.segmenters.color import build as build_color
from relam_jax.envs import make_env
from relam_jax.envs.pixels import Outcome, PixelEnv, SimulatedCameras
from relam_jax.envs.protocol import BatchedEnv
from relam_jax.envs.tracked import TrackedEnv
from relam_jax.envs.tracking import label_images_of

SIDE, STEP, CANDIDATES = 128, np.array([2.0, 1.0]), 16


class Film:
    """Two textured squares over a background, one of which moves: there is no simulator behind."""

    num_envs, num_init_states, action_dim, proprio_dim = 2, 1, 4, 3
    view_names, entity_names, action_repeat, episode_length = ("cam0",), ("gripper", "object"), 1, 9

    def __init__(self):
        rng = np.random.default_rng(0)
        noise = rng.integers(0, 255, (3, SIDE, SIDE, 3)).astype(np.uint8)
        self.textures = [cv2.GaussianBlur(x, (0, 0), 1.5) for x in noise]
        self.time = 0

    def boxes(self):
        return [(20, 20), tuple((np.array([60, 60]) + self.time * STEP).astype(int))]

    def image(self, index, view):
        image = self.textures[2].copy()
        for texture, (x, y) in zip(self.textures, self.boxes(), strict=False):
            image[y : y + 32, x : x + 32] = texture[:32, :32]
        return image

    def labels(self, index, view):
        labels = np.zeros((SIDE, SIDE), np.uint8)
        for number, (x, y) in enumerate(self.boxes(), start=1):
            labels[y : y + 32, x : x + 32] = number
        return labels

    def _outcome(self):
        no = np.zeros(2, bool)
        return Outcome(np.zeros((2, 3), np.float32), np.zeros(2, np.float32), no, no)

    def reset(self, mask, init_states):
        self.time = 0
        return self._outcome()

    def step(self, action):
        self.time += 1
        return self._outcome()

    def state(self):
        return {"time": np.array(self.time)}

    def set_state(self, state):
        self.time = int(state["time"])

    def close(self):
        pass


def film():
    env = TrackedEnv(Film(), num_candidates=CANDIDATES)
    candidates = env.reset()
    env.follow(np.tile(np.arange(CANDIDATES), (2, 1, 2, 1)))
    return env, candidates


def test_points_move_as_the_pictures_do():
    env, candidates = film()
    assert isinstance(env, BatchedEnv) and candidates.visibility.all()
    seen = [env.step(np.zeros((2, 4), np.float32)) for _ in range(4)][-1]
    moved = SIDE * (seen.keypoints - candidates.points)
    assert seen.visibility.mean() > 0.9
    assert np.abs(moved[:, :, 0]).max() < 0.2
    gap = np.abs(moved[:, :, 1] - 4 * STEP)[seen.visibility[:, :, 1]]
    assert np.median(gap) < 0.02 and gap.max() < 1, "the worst are those that companions place"
    env.close()


class Swapped(Film):
    """After its first frame the object is elsewhere and looks like nothing seen before."""

    def boxes(self):
        return [(20, 20), (80, 30) if self.time else (60, 60)]

    def image(self, index, view):
        image = super().image(index, view)
        if self.time:
            (x, y), texture = self.boxes()[1], self.textures[0][64:96, 64:96]
            image[y : y + 32, x : x + 32] = texture
        return image


@pytest.mark.parametrize("reseed", [False, True])
def test_lost_points_are_taken_up_again_by_a_fresh_mask(reseed):
    env = TrackedEnv(Swapped(), num_candidates=CANDIDATES)
    candidates, still = env.reset(), np.zeros((2, 4), np.float32)
    env.follow(np.tile(np.arange(CANDIDATES), (2, 1, 2, 1)))
    lost = env.step(still)
    assert lost.visibility[:, 0, 1].mean() < 0.1 and lost.visibility[:, 0, 0].all()
    if reseed:
        env.reseed(np.array([True, False]))
    after = env.step(still)
    seen = after.visibility[:, 0, 1].mean(-1)
    assert seen[1] < 0.1 and (seen[0] == 1) == reseed
    moved = SIDE * (after.keypoints - candidates.points)
    if reseed:
        assert np.abs(moved[0, 0, 1] - (20, -30)).max() < 4
    assert np.abs(moved[:, 0, 0]).max() < 0.2
    env.close()


def test_a_resumed_tracker_goes_on_bit_for_bit():
    env, _ = film()
    still = np.zeros((2, 4), np.float32)
    env.step(still)
    state = env.state()
    other = TrackedEnv(Film(), num_candidates=CANDIDATES)
    other.set_state(state)
    for _ in range(3):
        a, b = env.step(still), other.step(still)
        assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    first, second = (e.state()["trackers"] for e in (env, other))
    assert first.shape == state["trackers"].shape and np.array_equal(first, second)
    env.close()
    other.close()


def test_a_camera_that_shows_no_entity_is_none_to_follow():
    env = TrackedEnv(
        Film(), num_candidates=CANDIDATES, find=lambda image: np.zeros(image.shape[:2], np.uint8)
    )
    assert not env.reset().visibility.any()
    env.follow(np.tile(np.arange(CANDIDATES), (2, 1, 2, 1)))
    seen = env.step(np.zeros((2, 4), np.float32))
    env.reseed(np.ones(2, bool))
    assert not seen.visibility.any() and np.isfinite(seen.keypoints).all()
    env.close()


def test_masks_can_come_from_a_segmenter():
    """Real masks, of a weights-free segmenter: the film's own label images are not looked at."""

    class Coloured(Film):
        def image(self, index, view):
            image = np.full((SIDE, SIDE, 3), 128, np.uint8)
            for colour, (x, y) in zip(((200, 30, 30), (30, 200, 30)), self.boxes(), strict=True):
                image[y : y + 32, x : x + 32] = colour
            return image

        def labels(self, index, view):
            raise AssertionError("there is a segmenter")

    colours = PreprocessConfig(Path(), color=("gripper=red", "object=green"))
    segmenter = build_color(colours, Path())
    find = label_images_of(segmenter, ("gripper", "object"))
    np.testing.assert_array_equal(find(Coloured().image(0, 0)), Film().labels(0, 0))
    assert not find(np.full((8, 8, 3), 128, np.uint8)).any()
    with pytest.raises(ValueError, match="no prompt is for goal"):
        label_images_of(segmenter, ("gripper", "goal"))
    env = TrackedEnv(Coloured(), num_candidates=CANDIDATES, find=find)
    points = SIDE * env.reset().points[:, 0]
    for place, (x, y) in zip((points[:, 0], points[:, 1]), Film().boxes(), strict=True):
        assert (place >= (x, y)).all() and (place <= (x + 32, y + 32)).all()
    env.close()


def test_cameras_pass_no_state_of_the_simulator():
    env = make_env("drawer_open", 1, seed=0, keypoints="tracked", num_init_states=1)
    assert isinstance(env, TrackedEnv) and isinstance(env.cameras, SimulatedCameras)
    allowed = set(PixelEnv.__annotations__) | {n for n in vars(PixelEnv) if not n.startswith("_")}
    assert {name for name in dir(env.cameras) if not name.startswith("_")} == allowed
    assert allowed.isdisjoint({"follow", "candidates", "scripted_actions", "xpos"})
    assert set(Outcome._fields) == {"proprio", "env_reward", "success", "truncated"}
    env.close()


def test_threads_see_what_one_alone_would_see():
    """Drawers stand elsewhere in each initial state, and environments share models."""
    cameras = make_env("drawer_open", 6, seed=0, keypoints="tracked").cameras
    cameras.reset(np.ones(6, bool), np.arange(6))
    looks = list(np.ndindex(6, 2))
    with ThreadPoolExecutor(4) as threads:
        labels = list(threads.map(lambda look: cameras.labels(*look), looks))
    alone = make_env("drawer_open", 6, seed=0, keypoints="tracked").cameras
    alone.reset(np.ones(6, bool), np.arange(6))
    for look, seen in zip(looks, labels, strict=True):
        np.testing.assert_array_equal(seen, alone.labels(*look))
    try:
        cameras.image(0, 0)
    except RuntimeError as error:
        pytest.skip(f"no OpenGL back end works here: {error}")
    with ThreadPoolExecutor(4) as threads:
        images = list(threads.map(lambda look: cameras.image(*look), looks))
    for look, seen in zip(looks, images, strict=True):
        np.testing.assert_array_equal(seen, alone.image(*look))
    cameras.close()
    alone.close()


def test_errors_are_measured_against_the_simulator():
    """The scripted expert opens the drawer; keypoints stay near the truth, until they are moved."""
    settings = {"seed": 0, "num_init_states": 1, "action_repeat": 3}
    simulator = make_env("drawer_open", 1, **settings)
    simulator.reset()
    if simulator.follow(np.zeros((1, 2, 2, 1), int)) and simulator.render(0, 0) is None:
        pytest.skip("no OpenGL back end works here")
    env = make_env("drawer_open", 1, keypoints="tracked", measured=True, **settings)
    candidates = env.reset()
    env.follow(np.tile(np.arange(32), (1, 2, 2, 1)))
    assert np.isnan(env.take_error())
    for _ in range(15):
        action = simulator.scripted_actions()
        simulator.step(action)
        seen = env.step(action)
    moved = np.linalg.norm(seen.keypoints - candidates.points, axis=-1)
    assert moved[:, :, 0].mean() > 0.05, "the gripper moved"
    truth = env._simulator.project(env._followed)
    gap = np.linalg.norm(seen.keypoints - truth, axis=-1)[:, :, 0]
    assert np.median(gap[seen.visibility[:, :, 0]]) < 0.01, "of the gripper alone, in the end"
    assert 0 < env.take_error() < 0.01
    env.follow(np.zeros((1, 2, 2, 1), int))
    env._simulator.cameras = tuple(
        replace(camera, position=camera.position + 0.1) for camera in env._simulator.cameras
    )
    env.step(action)
    assert env.take_error() > 0.02
    env.close()
    simulator.close()
