"""ManiSkill's GPU simulation behind the protocol; skipped where there is no CUDA device."""

from importlib.util import find_spec

import numpy as np
import pytest

from relam_jax.envs import make_env
from relam_jax.envs.maniskill.env import ManiSkillEnv, cuda_devices

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not cuda_devices(), reason="nvidia-smi lists no CUDA device"),
    pytest.mark.skipif(
        find_spec("mani_skill") is None,
        reason="ManiSkill is not installed: make setup EXTRAS=maniskill",
    ),
]


def make(sim: str, num_envs: int = 16) -> ManiSkillEnv:
    env = make_env("pick_cube", num_envs, seed=0, num_init_states=16, sim=sim)
    assert isinstance(env, ManiSkillEnv)
    env.reset(init_states=np.arange(num_envs))
    env.follow(np.tile(np.arange(4), (num_envs, 2, 3, 1)))
    return env


def test_initial_states_are_those_of_the_cpu():
    on_gpu, on_cpu = make("gpu"), make("cpu")
    np.testing.assert_allclose(on_gpu.poses, on_cpu.poses, atol=1e-4)
    on_gpu.close()
    on_cpu.close()


def test_the_expert_succeeds_and_a_partial_reset_leaves_the_others_alone():
    env, success = make("gpu"), np.zeros(16, bool)
    for _ in range(50):
        success |= env.step(env.scripted_actions()).success
    assert success.mean() >= 0.9
    before, mask = env.poses, np.arange(16) < 4
    env.reset(mask)
    np.testing.assert_allclose(env.poses[~mask], before[~mask], atol=1e-5)
    assert np.abs(env.poses[mask] - before[mask]).max() > 0.01
    env.close()
