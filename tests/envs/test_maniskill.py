"""ManiSkill on the CPU: equal to the original, whatever was before, unharmed by deaths."""

import os
import signal
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

from relam_jax.envs import make_env
from relam_jax.envs.maniskill.env import ManiSkillEnv, pool_seeds
from relam_jax.envs.protocol import BatchedEnv, EnvState
from relam_jax.geometry import matrices

needs_maniskill = pytest.mark.skipif(
    find_spec("mani_skill") is None,
    reason="ManiSkill is not installed: make setup EXTRAS=maniskill",
)


def make(task: str = "pick_cube", num_envs: int = 3, **options) -> ManiSkillEnv:
    options = {"num_init_states": 4, "num_candidates": 8, "num_workers": 1, "sim": "cpu", **options}
    env = make_env(task, num_envs, seed=0, **options)
    assert isinstance(env, ManiSkillEnv)
    return env


def start(env: ManiSkillEnv, mask: np.ndarray | None = None, **options) -> EnvState:
    env.reset(mask, **options)
    return env.follow(np.tile(np.arange(4), (env.num_envs, 2, len(env.entity_names), 1)), mask)


def busy(env: ManiSkillEnv, steps: int) -> list[EnvState]:
    """The expert, disturbed: plenty of contacts."""
    rng = np.random.default_rng(1)
    states = []
    for _ in range(steps):
        noise = rng.normal(0, 0.2, (env.num_envs, env.action_dim))
        states.append(env.step(np.clip(env.scripted_actions() + noise, -1, 1).astype(np.float32)))
    return states


def assert_equal(a: list[EnvState], b: list[EnvState]) -> None:
    for x, y in zip(a, b, strict=True):
        for name in EnvState._fields:
            np.testing.assert_array_equal(getattr(x, name), getattr(y, name), err_msg=name)


def run_here(code: str) -> str:
    """Run Python in a process of its own: torch and jax stay apart."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


EQUAL = """
import hashlib, numpy as np, torch
torch.set_num_threads(1)
from relam_jax.envs.maniskill.experts import expert_actions
from relam_jax.envs.maniskill.sapien import make_simulation
from relam_jax.envs.maniskill.simulations import Simulations, describe

env_id = {env_id!r}
description, rng = describe(env_id), np.random.default_rng(0)
ours, hashes = Simulations(env_id, 4, False), []
assert ours._controller is not None
for seed in range(4):
    stock = make_simulation(env_id)
    stock.reset(seed=seed)
    frame = ours.reset([seed], [seed])
    for _ in range(50):
        action = expert_actions(description, frame.poses, frame.proprio)
        action = np.clip(action + rng.normal(0, 0.2, action.shape), -1, 1).astype(np.float32)
        _, _, _, _, info = stock.step(action[0])
        frame = ours.step([seed], action, np.array([1]))
        a, b = stock.get_state().numpy()[0], ours.states([seed])[0]
        assert hashlib.sha256(a).digest() == hashlib.sha256(b).digest()
        assert bool(info["success"]) == frame.success[0]
assert ours._success is not None, "evaluated one by one"
print("equal")
"""


@needs_maniskill
@pytest.mark.parametrize("env_id", ["PickCube-v1", "PushCube-v1", "StackCube-v1"])
def test_200_env_steps_equal_the_original_by_hash(env_id: str):
    assert "equal" in run_here(EQUAL.format(env_id=env_id))


@needs_maniskill
@pytest.mark.parametrize("task", ["pick_cube", "push_cube", "pull_cube", "stack_cube"])
def test_experts_succeed_and_what_matters_is_seen(task: str):
    env = make(task, 50, num_init_states=50, num_workers=2)
    assert isinstance(env, BatchedEnv)
    found = env.reset(init_states=np.arange(50))
    size = found.points.max(3) - found.points.min(3)  # of the candidates of an entity, image sides
    pixels = 256**2 * size.prod(-1) * found.visibility.any(-1)
    # in the view that shows it best; the gripper hides one PickCube goal in twelve
    assert (pixels.max(1) > 40).mean(0).min() >= 0.9
    hidden = 1 - found.visibility.any((1, 3)).mean(0)
    within_the_hand = {("pick_cube", "goal"): 0.06}
    assert (hidden <= [within_the_hand.get((task, name), 0) for name in env.entity_names]).all()
    env.follow(np.tile(np.arange(4), (50, 2, len(env.entity_names), 1)))
    success, inside = np.zeros(50, bool), []
    for _ in range(50):
        state = env.step(env.scripted_actions())
        success |= state.success
        inside.append(((state.keypoints > 0) & (state.keypoints < 1)).all(-1).mean((0, 3)))
    env.close()
    assert success.mean() >= 0.95
    assert np.mean(inside, axis=0).min() > 0.98


@needs_maniskill
def test_episodes_do_not_depend_on_what_was_before():
    env, states = make(num_envs=2, num_init_states=12), np.arange(2)
    start(env, init_states=states)
    first = busy(env, 50)
    for before in range(2, 12, 2):
        start(env, init_states=states + before)
        busy(env, 30)
    start(env, init_states=states)
    assert_equal(busy(env, 50), first)
    env.close()


@needs_maniskill
def test_a_killed_worker_is_replaced_and_nothing_changes():
    env, twin = make(), make()
    start(env)
    start(twin)
    assert_equal(busy(env, 10), busy(twin, 10))
    worker = env._simulator._workers[0]
    os.kill(worker.process.pid, signal.SIGKILL)
    ahead = busy(env, 10)
    assert env._simulator.num_deaths == 1
    assert_equal(ahead, busy(twin, 10))  # the twin's simulations died with it
    env.close()
    twin.close()


ON_THE_CPU = """
import jax, numpy as np, torch
torch.set_num_threads(1)
from relam_jax.envs import make_env
from relam_jax.envs.maniskill import env as module, sapien
from relam_jax.envs.maniskill.gpu import shared

buffer = torch.arange(6.0, dtype=torch.float64).reshape(2, 3)
mine = shared(buffer[:, 1:])
buffer[:] = 0
np.testing.assert_array_equal(mine, [[1, 2], [4, 5]])  # jax's own, contiguous, 32 bits

original = sapien.make_simulation
sapien.make_simulation = lambda env_id, num, *, gpu, reward: original(env_id, num, reward=reward)
module.choose_simulator = lambda sim: sim

def make(sim):
    env = make_env("pick_cube", 1, seed=0, num_init_states=4, num_workers=1, sim=sim)
    return env, start(env)

def start(env):
    env.reset(init_states=np.array([1]))
    return env.follow(np.tile(np.arange(4), (1, 2, 3, 1)))

def assert_close(a, b):
    np.testing.assert_allclose(a.keypoints, b.keypoints, atol=2e-3)
    np.testing.assert_allclose(a.proprio[:, -3:], b.proprio[:, -3:], atol=2e-3)
    np.testing.assert_array_equal(a.visibility, b.visibility)

(cpu, a), (gpu, b) = make("cpu"), make("gpu")
assert isinstance(b.keypoints, jax.Array) and isinstance(b.proprio, jax.Array)
assert_close(a, b)
success = np.zeros(2, bool)
for step in range(30):
    if step == 10:
        saved, other = gpu.state(), make("gpu")[0]
        other.set_state(saved)
    action = cpu.scripted_actions()
    a, b = cpu.step(action), gpu.step(action)
    if step < 25:
        assert_close(a, b)
    if step >= 10:
        c = other.step(action)
        np.testing.assert_allclose(b.keypoints, c.keypoints, atol=2e-2)
    success |= np.concatenate([a.success, b.success])
assert success.all()
assert_close(start(cpu), start(gpu))
print("the same")
"""


@needs_maniskill
def test_the_gpu_back_end_with_one_environment_on_the_cpu():
    assert "the same" in run_here(ON_THE_CPU)


@needs_maniskill
def test_state_round_trip():
    env, other = make(), make()
    start(env)
    busy(env, 7)
    start(env, np.array([True, False, True]))
    busy(env, 5)
    saved = env.state()
    ahead = [*busy(env, 5), start(env, np.array([False, True, True])), *busy(env, 5)]
    other.set_state(saved)
    again = [*busy(other, 5), start(other, np.array([False, True, True])), *busy(other, 5)]
    assert_equal(ahead, again)
    with pytest.raises(ValueError, match="of 3 environments, not of 2"):
        make(num_envs=2).set_state(saved)
    assert {k: v.shape for k, v in saved["simulator"].items()} == {
        k: v.shape for k, v in env.state()["simulator"].items()
    }


@needs_maniskill
def test_time_limit_and_action_repeat():
    env = make(num_envs=1, episode_length=10, action_repeat=3)
    start(env)
    states = busy(env, 5)
    assert [bool(s.truncated[0]) for s in states] == [False, False, False, True, True]
    np.testing.assert_array_equal(states[3].keypoints, states[4].keypoints)
    env.close()


@needs_maniskill
def test_other_tasks_work_by_their_id():
    env = make("LiftPegUpright-v1", 1)
    assert env.entity_names == ("gripper", "peg")
    state = start(env)
    state = env.step(np.ones((1, env.action_dim), np.float32))
    assert np.isfinite(state.keypoints).all() and state.visibility.any()
    with pytest.raises(ValueError, match="no scripted expert for LiftPegUpright-v1"):
        env.scripted_actions()
    env.close()


@needs_maniskill
def test_an_unknown_task_is_one_sentence_with_near_matches():
    with pytest.raises(ValueError, match=r"no task 'PickCub-v1'.*PickCube-v1"):
        make("PickCub-v1")


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setattr("relam_jax.envs.maniskill.env.cuda_devices", lambda: 0)
    with pytest.raises(ValueError, match="nvidia-smi lists none: use --sim cpu"):
        make(sim="gpu")
    monkeypatch.setattr("relam_jax.envs.maniskill.processes._WORKERS", [])
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ValueError, match="make setup EXTRAS=maniskill"):
        make()


def test_pools_are_disjoint():
    pools = [pool_seeds(*p, 10_000) for p in (("train", 0), ("train", 9999), ("eval", 0))]
    pools += [pool_seeds("eval", 9999, 10_000), pool_seeds("demos", 9999, 10_000)]
    assert len(set(np.concatenate(pools).tolist())) == 50_000
    with pytest.raises(ValueError, match="count"):
        pool_seeds("train", 0, 10_001)


def test_matrices_of_quaternions():
    half = np.sqrt(0.5)
    turn = matrices(np.array([[half, 0, 0, half]])).reshape(3, 3)  # x to y about z
    np.testing.assert_allclose(turn @ [1.0, 0, 0], [0, 1, 0], atol=1e-12)
