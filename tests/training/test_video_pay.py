"""What runs under rewards of a model of demonstrations look at and are paid for."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from relam_jax.diffusion.fit import DiffusionConfig
from relam_jax.diffusion.store import ensure_video_model
from relam_jax.training.config import TrainConfig
from relam_jax.training.demonstrations import demonstration_frames
from relam_jax.training.experiment import run_video_model
from relam_jax.training.imitation import read_places
from relam_jax.training.task_env import make_goal_env

FIT = DiffusionConfig(vq_steps=10, fit_steps=10, batch_size=4)
CONFIG = TrainConfig(task="drawer_open", reward="diffusion", action_repeat=3, episode_length=12)


@pytest.fixture(scope="module")
def config(records_folder, tmp_path_factory):
    out, videos = tmp_path_factory.mktemp("run"), records_folder.parent / "drawer_open"
    config = replace(CONFIG, out=str(out), data=str(records_folder), diffusion=FIT)
    read = partial(demonstration_frames, records_folder, videos, 64)
    ensure_video_model(config.video_model_folder, read, FIT, 3, 0)
    return config


def test_frames_are_those_of_the_records(records_folder, tmp_path):
    videos = records_folder.parent / "drawer_open"
    clips = demonstration_frames(records_folder, videos, 64)
    assert len(clips) == 5 and clips[0].shape[1:] == (64, 64, 3) and clips[0].std() > 10
    both = demonstration_frames(records_folder, videos, 64, ("cam1", "cam0"))
    np.testing.assert_array_equal(both[0][..., 3:], clips[0])
    with pytest.raises(ValueError, match="holds no video of drawer_open/000 in the view cam2"):
        demonstration_frames(records_folder, videos, 64, ("cam2",))
    with pytest.raises(ValueError, match=r"learns from videos, but there are none at .*none"):
        demonstration_frames(records_folder, tmp_path / "none", 64)
    (tmp_path / "000.cam0.mp4").symlink_to(videos / "001.cam0.mp4")
    with pytest.raises(ValueError, match="is not the one that the record of"):
        demonstration_frames(records_folder, tmp_path, 64)
    (tmp_path / "000.cam0.mp4").unlink()
    (tmp_path / "000.cam0.mp4").symlink_to(videos / "000.cam0.mp4")
    with pytest.raises(ValueError, match=r"holds no video of drawer_open/001 in the view cam0"):
        demonstration_frames(records_folder, tmp_path, 64)


def test_demonstrations_look_like_the_simulator(config, records_folder, anticipation):
    """Same camera, light and colours: else every frame of the policy would be a surprise."""
    clips = demonstration_frames(records_folder, records_folder.parent / "drawer_open", 64)
    env = make_goal_env(config, anticipation, 4, "train")
    shown = env.frames[:, 0].astype(float).mean(0)
    filmed = np.mean([clip[0] for clip in clips], axis=0)
    assert np.abs(shown - filmed).mean() < 3
    env.env.close()


def test_training_is_paid_for_frames_and_evaluation_does_not_look(config, anticipation):
    env = make_goal_env(config, anticipation, 2, "train")
    assert env.frames.shape == (2, 1, 64, 64, 3)
    plain = make_goal_env(replace(config, reward="relam"), anticipation, 2, "train")
    assert env.obs_dim == plain.obs_dim
    for t in range(4):
        action = np.full((2, 4), 0.5, np.float32)
        step, other = env.step(action), plain.step(action)
        np.testing.assert_array_equal(step.reward, other.reward)
        np.testing.assert_array_equal(step.final_obs, other.final_obs)
        assert np.isfinite(step.pay).all() and (np.asarray(step.pay) != other.pay).all()
        past = np.asarray(env.video_pay.past)
        started = (past == past[:, :1]).all()
        assert started == (t == 3), "an episode begins with its first frame, repeated"
    evaluated = make_goal_env(config, anticipation, 2, "eval")
    assert evaluated.frames is None and evaluated.video_pay is None
    for each in (env, plain, evaluated):
        each.env.close()


def test_keypoint_diffusion_is_paid_for_places_and_renders_nothing(
    records_folder, anticipation, tmp_path
):
    """Its places are dacfo's, and begin where those of the demonstrations do."""
    config = replace(CONFIG, out=str(tmp_path), data=str(records_folder), diffusion=FIT)
    config = replace(config, reward="keypoint_diffusion")
    run_video_model(config, anticipation)
    env = make_goal_env(config, anticipation, 2, "train")
    other = make_goal_env(replace(config, reward="dacfo"), anticipation, 2, "train")
    plain = make_goal_env(replace(config, reward="relam"), anticipation, 2, "train")
    assert env.frames is None and env.obs_dim == plain.obs_dim + 8
    shown = np.concatenate([clip[:1] for clip in read_places(config, anticipation)])
    np.testing.assert_allclose(env.obs[:, -8:].mean(0), shown.mean(0), atol=0.05)
    for _ in range(4):
        action = np.full((2, 4), 0.5, np.float32)
        step, same = env.step(action), other.step(action)
        np.testing.assert_array_equal(step.final_obs, same.final_obs)
        assert np.isfinite(step.pay).all() and (np.asarray(step.pay) != same.pay).all()
    with pytest.raises(ValueError, match="of: places → frames"):
        make_goal_env(replace(config, reward="diffusion"), anticipation, 2, "train")
    for each in (env, other, plain):
        each.env.close()
