"""The stepper against Meta-World's own Gymnasium environment: equal to the last bit."""

import gymnasium as gym
import numpy as np
import pytest

from relam_jax.envs import make_env
from relam_jax.envs.scripted import initial_states, scripted_expert
from relam_jax.envs.simulator import metaworld
from relam_jax.envs.stepper import Stepper, Template

# The drawer is placed by the model's body_pos; pick-place has a free object and a costly reward;
# bin-picking and basketball keep views of the simulator's memory; stick-push asks for a grasp.
# (All 50 tasks were compared once, by hand.)
TASKS = ["drawer-open-v3", "pick-place-v3", "bin-picking-v3", "basketball-v3", "stick-push-v3"]
SEED = 1_000_000_000  # the first of the training pools


def gymnasium_env(env_id: str) -> gym.Env:
    assert metaworld is not None
    env = gym.make("Meta-World/MT1", env_name=env_id, seed=SEED, disable_env_checker=True)
    env.get_wrapper_attr("toggle_sample_tasks_on_reset")(False)
    return env


def reset(env: gym.Env, task) -> np.ndarray:
    env.unwrapped.set_task(task)  # type: ignore[attr-defined]
    env.reset()
    return env.reset()[0]


def actions(kind: str, env_id: str, steps: int):
    """A function obs → action, in float64 and float32 by turns."""
    expert, rng, count = scripted_expert(env_id), np.random.default_rng(1), 0

    def act(obs: np.ndarray) -> np.ndarray:
        nonlocal count
        count += 1
        action = expert(obs) if kind == "expert" else rng.uniform(-1, 1, 4)
        return action.astype(np.float32 if count % 2 else np.float64)

    return act


@pytest.mark.parametrize("env_id", TASKS)
def test_equal_to_gymnasium_to_the_last_bit(env_id: str):
    reference = gymnasium_env(env_id)
    tasks = initial_states(env_id, "train", 0, 3)
    assert [t.data for t in tasks] == [t.data for t in reference.get_wrapper_attr("tasks")[:3]]
    exact, fast = (Template(env_id, tasks, reward) for reward in (True, False))
    exact.initial(2)  # resets in another order must not matter
    full, lean = (Stepper(t, t.new_model()) for t in (exact, fast))
    successes = 0
    for state, kind in ((1, "expert"), (0, "random")):
        obs = reset(reference, tasks[state])
        full.restore(exact.initial(state))
        lean.restore(fast.initial(state))
        np.testing.assert_array_equal(full.obs, obs)
        act = actions(kind, env_id, 200)
        for _ in range(200):
            action = act(obs)
            obs, reward, _, _, info = reference.step(action)
            full.bind_model()
            lean.bind_model()
            assert full.env_step(action) == (float(reward), bool(info["success"]))
            assert lean.env_step(action) == (0.0, bool(info["success"]))
            np.testing.assert_array_equal(full.obs, obs)
            np.testing.assert_array_equal(lean.obs[:7], obs[:7])
            successes += bool(info["success"])
    assert successes > 0
    reference.close()


def test_threads_and_shared_models_change_nothing():
    """Five environments on two models, agent steps of three env_steps, against five originals."""
    env_id, num_envs = "window-open-v3", 5
    env = make_env(env_id, num_envs, seed=0, env_reward=True, num_threads=2, num_init_states=5)
    tasks = initial_states(env_id, "train", 0, num_envs)
    originals = [gymnasium_env(env_id) for _ in range(num_envs)]
    obs = [reset(e, t) for e, t in zip(originals, tasks, strict=True)]
    experts = [scripted_expert(env_id) for _ in range(num_envs)]
    env.reset(init_states=np.arange(num_envs))
    env.follow(np.zeros((num_envs, 2, 2, 1), np.int64))
    succeeded = np.zeros(num_envs, bool)
    for _ in range(35):
        action = np.stack([e(o) for e, o in zip(experts, obs, strict=True)]).astype(np.float32)
        got = env.step(action)
        for i, original in enumerate(originals):
            total, success = 0.0, False
            for _ in range(3):
                obs[i], reward, _, _, info = original.step(action[i])
                total += float(reward)
                success |= bool(info["success"])
            assert got.env_reward[i] == np.float32(total)
            assert got.success[i] == success
            np.testing.assert_array_equal(got.proprio[i], obs[i][:4].astype(np.float32))
        succeeded |= got.success
    assert succeeded.all()
    env.close()
