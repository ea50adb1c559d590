"""Episodes that succeed and that fail, played in the simulator, and the reward along them."""

import jax.numpy as jnp
import numpy as np
import pytest

from relam_jax.anticipation.plan import load_anticipation, make_planner
from relam_jax.report.true_progress import begin, compare, play_kinds, true_progress
from relam_jax.reward.stage_machine import RewardConfig
from relam_jax.training.config import TrainConfig
from relam_jax.training.task_env import make_task_env

EPISODES, HOLD = 2, 3


@pytest.fixture(scope="module")
def played(model):
    """Plans of an untrained model, and two episodes of each kind."""
    anticipation = load_anticipation(model)
    config = TrainConfig(action_repeat=1, episode_length=150, reward="dense")
    env = make_task_env(config, anticipation, EPISODES, "eval")
    plan = make_planner(anticipation)(*begin(env))
    kinds = play_kinds(env, plan, HOLD)
    env.close()
    return plan, kinds


def test_the_expert_succeeds_and_the_others_fail(played):
    _, kinds = played
    assert kinds["expert"].success.any(0).all()
    assert not kinds["random"].success.any()
    last = {name: episodes.progress[-1].mean() for name, episodes in kinds.items()}
    assert last["expert"] > 8 and last["given up"] < 5 and last["random"] < 2
    half = kinds["expert"].success.argmax(0).min() // 2
    assert half > 5
    np.testing.assert_allclose(
        kinds["expert"].keypoints[:half], kinds["given up"].keypoints[:half], atol=1e-5
    )


def test_reversed_is_the_expert_backwards(played):
    _, kinds = played
    expert, back = kinds["expert"], kinds["reversed"]
    np.testing.assert_array_equal(back.keypoints[0], expert.keypoints[-1])
    # row t of the progress is of the frame after env_step t
    np.testing.assert_array_equal(back.keypoints[1], expert.keypoints[-2])
    np.testing.assert_array_equal(back.progress[0], expert.progress[-2])
    np.testing.assert_array_equal(back.progress[-2], expert.progress[0])


def test_a_true_plan_is_followed_by_the_expert_alone(played):
    """With where the expert's keypoints end up as the only subgoal."""
    plan, kinds = played
    goal = np.repeat(kinds["expert"].keypoints[-1][:, None], plan.subgoals.shape[1], axis=1)
    plan = plan._replace(subgoals=jnp.asarray(goal), num_stages=jnp.ones(EPISODES, int))
    names = ("gripper", "object")
    seen = {n: compare(e, plan, names, RewardConfig(), HOLD) for n, e in kinds.items()}
    assert seen["expert"].reward.shape == seen["expert"].progress.shape == (50, EPISODES)
    assert seen["expert"].correlation.min() > 0.6
    assert (seen["expert"].stages[-1] == 1).all()
    for other in ("given up", "random"):
        assert seen["expert"].reward[-1].min() > seen[other].reward[-1].max() + 0.3


def test_a_task_without_an_expert_is_a_sentence(model, monkeypatch):
    from relam_jax.envs.metaworld import MetaWorldEnv

    def none(self):
        raise ValueError("PegInsertion has no scripted expert")

    monkeypatch.setattr(MetaWorldEnv, "scripted_actions", none)
    with pytest.raises(ValueError, match="no scripted expert"):
        true_progress(load_anticipation(model), TrainConfig(), episodes=1)
