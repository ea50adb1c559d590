"""Observation, reward and resets on the real simulator."""

import itertools
from dataclasses import replace
from functools import partial
from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relam_jax.anticipation.plan import Plan
from relam_jax.reward.stage_machine import RewardConfig, level
from relam_jax.training.config import TrainConfig
from relam_jax.training.goal_env import GoalEnv, goal_of
from relam_jax.training.task_env import make_goal_env
from tests.training.conftest import untrained

CONFIG = TrainConfig(task="drawer_open", action_repeat=1, episode_length=4)


@pytest.fixture(scope="module")
def env(anticipation):
    env = make_goal_env(CONFIG, anticipation, 3, "train")
    yield env
    env.env.close()


def test_final_observation_of_a_four_step_episode_is_not_that_of_the_next(env):
    env.reset()
    rng = np.random.default_rng(0)
    for t in range(4):
        step = env.step(rng.uniform(-1, 1, (3, 4)).astype(np.float32))
        assert step.truncated.tolist() == [t == 3] * 3
        if t < 3:
            np.testing.assert_array_equal(step.obs, step.final_obs)
    assert (np.abs(np.asarray(step.obs) - np.asarray(step.final_obs)).max(1) > 1e-3).all()
    # proprioception ends the observation: the new episode starts with the hand at rest
    rest = env.reset()[:, -4:]
    np.testing.assert_allclose(step.obs[:, -4:], rest, atol=0.05)


def test_observation_holds_points_subgoals_visibility_and_stage(env):
    obs, k = np.asarray(env.reset()), 2 * 2 * 4
    goal, stage = jax.device_get((env.goal, env.stage))
    points, towards = obs[:, : 2 * k] / 2 + 0.5, np.sinh(2 * obs[:, 2 * k : 4 * k]) / 100
    first = goal.subgoals[:, 0].reshape(3, -1)
    seen = np.repeat(goal.valid.reshape(3, -1), 2, axis=1)
    np.testing.assert_allclose(np.where(seen, points + towards - first, 0), 0, atol=1e-5)
    np.testing.assert_array_equal(obs[:, 4 * k : 5 * k], goal.valid.reshape(3, -1))
    np.testing.assert_array_equal(obs[:, 5 * k : 5 * k + 3], np.eye(3)[stage.stage])
    assert obs.shape[1] == 5 * k + 3 + 4


def test_only_the_gripper_must_have_been_near_what_it_goes_by(env):
    reach, gripper = np.asarray(env.goal.reach), env.env.entity_names.index("gripper")
    assert np.isfinite(reach[..., gripper]).all()
    assert np.isinf(np.delete(reach, gripper, axis=-1)).all()


def test_what_is_left_out_of_a_view_does_not_make_the_hand_a_means():
    points = np.full((1, 2, 2, 4, 2), 0.5, np.float32)
    moves = np.array([[1, 1], [1, 0]])  # (view, entity)
    subgoals = points[:, None] + 0.1 * moves[:, :, None, None]
    valid = np.ones((1, 2, 2, 4), bool)
    rest = (np.ones(1, int), np.full((1, 1, 2, 2), 0.001))
    plan = Plan(*map(jnp.asarray, (np.zeros(valid.shape, int), valid, points, subgoals, *rest)))
    out = plan._replace(valid=valid & np.array([[1, 0], [1, 1]])[:, :, None])
    names, config = ("gripper", "object"), RewardConfig()
    seen, unseen = (goal_of(p, names, config) for p in (plan, out))
    np.testing.assert_allclose(seen.weight[0, 0], [[config.effector_weight, 1]] * 2)
    np.testing.assert_allclose(unseen.weight, 1)
    strict, cap = config.success_floor, config.success_cap
    np.testing.assert_allclose(unseen.threshold[0, 0], [[strict, cap]] * 2)
    np.testing.assert_allclose(seen.threshold[0, 0, :, 0], config.effector_slack * strict)


def test_without_proprioception_the_observation_ends_with_the_stage(anticipation):
    env = make_goal_env(replace(CONFIG, observation="keypoints"), anticipation, 1, "train")
    assert env.obs_dim == 5 * 16 + 3
    env.env.close()


def test_frames_show_the_state_the_action_led_to_and_then_the_new_episode(env):
    looking = GoalEnv(env.env, env.planner, CONFIG.shaping, frame_size=32)
    first = looking.frames
    assert first.shape == (3, 2, 32, 32, 3) and first.std() > 10
    for t in range(4):
        step = looking.step(np.full((3, 4), 1.0, np.float32))
        if t < 3:
            np.testing.assert_array_equal(step.final_frames, looking.frames)
    assert (np.abs(step.final_frames.astype(int) - first).max((1, 2, 3, 4)) > 20).all()
    assert (np.abs(step.final_frames.astype(int) - looking.frames).max((1, 2, 3, 4)) > 20).all()
    kept = looking.state()
    looking.step(np.full((3, 4), -1.0, np.float32))
    looking.set_state(kept)
    np.testing.assert_array_equal(looking.frames, kept["frames"])


def test_rgb_is_the_keypoints_beside_what_the_cameras_show(anticipation):
    env = make_goal_env(replace(CONFIG, observation="rgb"), anticipation, 2, "train")
    plain = make_goal_env(replace(CONFIG, observation="keypoints"), anticipation, 2, "train")
    assert env.frame_shape == (84, 84, 6) and plain.frame_shape is None
    rng = np.random.default_rng(0)
    for t in range(5):
        action = rng.uniform(-1, 1, (2, 4)).astype(np.float32)
        seen, points = env.step(action), plain.step(action)
        for name in ("obs", "final_obs"):
            sight = getattr(seen, name)
            np.testing.assert_array_equal(sight.vector, getattr(points, name))
            assert sight.frames.shape == (2, 84, 84, 6) and sight.frames.dtype == np.uint8
        np.testing.assert_array_equal(seen.final_obs.frames[..., 3:], seen.final_frames[:, 1])
        other = np.any(seen.obs.frames != seen.final_obs.frames, axis=(1, 2, 3))
        assert other.tolist() == seen.truncated.tolist() == [t == 3] * 2
    kept = env.state()
    env.step(action)
    env.set_state(kept)
    for a, b in zip(env.obs, seen.obs, strict=True):
        np.testing.assert_array_equal(a, b)
    # a video of the same episode is not as small
    assert env.env.render(0, 1).shape == (256, 256, 3)
    env.env.close()
    plain.env.close()


@pytest.mark.skipif(find_spec("mani_skill") is None, reason="make setup EXTRAS=maniskill")
def test_rgb_in_maniskill():
    config = replace(CONFIG, task="push_cube", observation="rgb", sim="cpu", episode_length=2)
    entities = ("gripper", "cube", "goal")
    model = untrained(("cam0", "cam1"), entities, "push_cube")
    try:
        env = make_goal_env(config, model, 2, "train")
    except RuntimeError as error:
        pytest.skip(str(error))
    seen = [env.obs, *(env.step(np.ones((2, env.action_dim), np.float32)).obs for _ in range(2))]
    for before, after in itertools.pairwise(seen):
        assert before.frames.shape == (2, 84, 84, 6) and before.frames.std() > 10
        assert (before.frames != after.frames).any((1, 2, 3)).all()
    env.env.close()


def test_arm_scale_slows_the_arm_and_not_the_gripper(env):
    slow = GoalEnv(env.env, env.planner, CONFIG.shaping, arm_scale=0.5)
    obs = []
    for scaled, action in ((env, [0.5, -0.5, 0.25, 1]), (slow, [1, -1, 0.5, 1])):
        scaled.reset(init_states=np.zeros(3, int))
        for _ in range(2):
            step = scaled.step(np.tile(np.float32(action), (3, 1)))
        obs.append(np.asarray(step.obs[:, -4:]))
    np.testing.assert_array_equal(*obs)


def test_final_reward_has_one_stage(anticipation):
    env = make_goal_env(replace(CONFIG, reward="final"), anticipation, 2, "train")
    assert env.max_stages == 1 and (np.asarray(env.goal.num_stages) == 1).all()
    env.env.close()


def test_pay_adds_up_to_the_reward_but_for_what_the_first_state_is_worth(anticipation):
    """Σ γ^t pay_t = Σ γ^t reward_t − worth_0 / (1 − γ), in the limit: the tail is worth_T."""
    config = replace(CONFIG, episode_length=40)
    env, gamma = make_goal_env(config, anticipation, 2, "train"), config.sac.gamma
    worth = np.asarray(jax.vmap(partial(level, config=config.shaping))(env.stage, env.goal))
    action = np.tile(np.float32([0.3, 0.5, -0.2, 0]), (2, 1))
    steps = [env.step(action) for _ in range(30)]
    pay, reward = (np.stack([np.asarray(getattr(s, n)) for s in steps]) for n in ("pay", "reward"))
    discount = gamma ** np.arange(30)[:, None]
    tail = gamma**30 * reward[-1] / (1 - gamma)
    np.testing.assert_allclose(
        (discount * pay).sum(0), (discount * reward).sum(0) + tail - worth / (1 - gamma), atol=1e-4
    )
    assert np.abs(pay).max() > 0
    env.env.close()


@pytest.mark.parametrize("reward", ["dense", "sparse"])
def test_the_simulators_own_rewards(anticipation, reward):
    env = make_goal_env(replace(CONFIG, reward=reward), anticipation, 2, "train")
    step = env.step(np.zeros((2, 4), np.float32))
    assert ((np.asarray(step.reward) > 0) == (reward == "dense")).all()
    np.testing.assert_array_equal(step.pay, step.reward)
    env.env.close()


@pytest.mark.parametrize("reward", ["dense", "sparse"])
def test_the_simulators_own_rewards_rank_its_expert_above_chance(anticipation, reward):
    config = replace(CONFIG, reward=reward, episode_length=110)
    env, rng, total = make_goal_env(config, anticipation, 2, "train"), np.random.default_rng(0), []
    for act in (env.env.scripted_actions, lambda: rng.uniform(-1, 1, (2, 4)).astype(np.float32)):
        env.reset(init_states=np.arange(2))
        total.append(sum(np.asarray(env.step(act()).reward) for _ in range(110)))
    assert (total[0] > total[1] + 5).all()
    env.env.close()


def test_a_model_of_other_views_or_entities_is_refused(anticipation):
    for other, words in (
        ({"view_names": ("left", "right")}, "has the views cam0, cam1, not left"),
        ({"entity_names": ("gripper", "cup")}, r"knows the entities \('gripper', 'cup'\)"),
    ):
        with pytest.raises(ValueError, match=f"{words}.*: record and preprocess its own videos"):
            make_goal_env(CONFIG, replace(anticipation, **other), 1, "train")


def test_one_view_is_the_special_case():
    env = make_goal_env(CONFIG, untrained(("cam0",)), 2, "train")
    step = env.step(np.zeros((2, 4), np.float32))
    assert step.distance.shape == (2, 1, 2) and env.obs_dim == 5 * 8 + 3 + 4
    env.env.close()
