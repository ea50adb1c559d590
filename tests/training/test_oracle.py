"""True subgoals of the real simulator, with an untrained anticipation model."""

import jax
import numpy as np
import pytest

from relam_jax.anticipation.plan import make_planner
from relam_jax.envs import make_env
from relam_jax.report.along import reward_along
from relam_jax.training.config import TrainConfig
from relam_jax.training.goal_env import GoalEnv
from relam_jax.training.oracle import make_oracle, nearest_in_order
from relam_jax.training.task_env import make_goal_env

SHAPING, POOL = TrainConfig().shaping, {"seed": 0, "split": "train", "num_init_states": 4}


@pytest.fixture(scope="module")
def simulator():
    env = make_env("drawer_open", 4, action_repeat=1, episode_length=150, **POOL)
    yield env
    env.close()


@pytest.fixture(scope="module")
def planner(anticipation):
    return make_planner(anticipation)


@pytest.fixture(scope="module")
def env(simulator, planner):
    return GoalEnv(simulator, make_oracle(planner, simulator, "drawer_open", POOL), SHAPING)


def watch(env, act, env_steps=120):
    """Keypoints (N, T, V, E, K, 2) of one episode from each initial state."""
    env.reset(init_states=np.arange(4))
    seen = [env.env.step(act()) for _ in range(env_steps)]
    return np.stack([s.keypoints for s in seen], axis=1)


@pytest.fixture(scope="module")
def demonstration(env):
    return watch(env, env.env.scripted_actions)


@pytest.mark.parametrize("reward", ["oracle", "final"])
def test_the_reward_ranks_a_demonstration_above_a_reversed_and_a_random_one(
    env, demonstration, reward
):
    rng = np.random.default_rng(0)
    chance = watch(env, lambda: rng.uniform(-1, 1, (4, 4)).astype(np.float32))
    goals = env.goal
    if reward == "final":
        goals = GoalEnv(env.env, env.planner, SHAPING, reward="final")
        goals.reset(init_states=np.arange(4))
        goals = goals.goal
    for n in range(4):
        goal = jax.tree.map(lambda x, n=n: x[n], goals)
        paths = (demonstration[n], demonstration[n, ::-1], chance[n])
        along = [reward_along(p, np.ones(p.shape[:-1], bool), goal, SHAPING) for p in paths]
        shown, reversed_, random = (float(a.reward.sum()) for a in along)
        assert along[0].stage[-1] == goal.num_stages, "the expert meets every true subgoal"
        assert shown > reversed_ + 5 and shown > random + 5


def test_subgoals_are_where_the_points_came_in_order_and_to_the_end(env, demonstration):
    env.reset(init_states=np.arange(4))
    goal = jax.device_get(env.goal)
    for n in range(4):
        m = int(goal.num_stages[n])
        gap = np.abs(demonstration[n][:, None] - goal.subgoals[n, :m]).max((2, 3, 4, 5))
        assert gap.min(0).max() < 1e-5, "each is a frame of the expert's own episode"
        assert (np.diff(gap.argmin(0)) > 0).all()
        at_end = np.abs(demonstration[n, -1] - goal.subgoals[n, m - 1]).max()
        assert at_end < 0.02, "the last one shows the task done"
        assert np.abs(demonstration[n - 1, -1] - goal.subgoals[n, m - 1]).max() > 2 * at_end


def test_keypoints_are_those_that_relam_would_follow(env, planner):
    env.reset(init_states=np.array([3, 0, 3, 1]))
    true = env.planner(*env.candidates)
    plan = planner(*env.candidates)
    for name in ("indices", "valid", "start", "num_stages", "error"):
        np.testing.assert_allclose(getattr(true, name), getattr(plan, name), atol=1e-6)
    assert np.abs(true.subgoals - plan.subgoals).max() > 0.02
    np.testing.assert_array_equal(true.subgoals[0], true.subgoals[2])


def test_moments_are_the_best_in_order():
    rng = np.random.default_rng(0)
    for _ in range(50):
        distance = rng.random((3, 7))
        options = [(i, j, 6) for j in range(6) for i in range(j)]
        best = min(options, key=lambda t: distance[range(3), t].sum())
        assert tuple(nearest_in_order(distance)) == best
    assert nearest_in_order(np.zeros((1, 4))).tolist() == [3]


def test_where_the_expert_fails_the_anticipated_plan_stays(
    simulator, env, planner, capsys, monkeypatch
):
    from relam_jax.training import oracle

    monkeypatch.setattr(oracle, "MAX_ENV_STEPS", 5)
    env.reset(init_states=np.arange(4))
    plan = make_oracle(planner, simulator, "drawer_open", POOL)(*env.candidates)
    assert "fails in 4 of 4 initial states" in capsys.readouterr().err
    np.testing.assert_allclose(plan.subgoals, planner(*env.candidates).subgoals, atol=1e-6)
    assert (plan.error > 0).all()


def test_training_and_evaluation_get_the_oracle_of_their_own_pool(anticipation, monkeypatch):
    from relam_jax.training import task_env

    made = []
    monkeypatch.setattr(task_env, "make_oracle", lambda *args: made.append(args))
    monkeypatch.setattr(task_env, "GoalEnv", lambda *args, **options: object.__new__(GoalEnv))
    for reward, split in (("oracle", "train"), ("oracle", "eval"), ("relam", "train")):
        make_goal_env(TrainConfig(reward=reward, seed=3), anticipation, 1, split)
    assert [options["split"] for *_, options in made] == ["train", "eval"]
    assert all(options["seed"] == 3 for *_, options in made)
    assert all(options["views"] == ("cam0", "cam1") for *_, options in made)
