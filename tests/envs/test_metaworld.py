"""Behaviour of the batched environment: seeds, time limits, resets, checkpoints, failures."""

import numpy as np
import pytest

from relam_jax.envs import make_env
from relam_jax.envs.metaworld import MetaWorldEnv
from relam_jax.envs.protocol import EnvState
from relam_jax.envs.scripted import initial_states
from relam_jax.envs.simulator import mujoco


def make(num_envs: int = 3, seed: int = 0, **options) -> MetaWorldEnv:
    options = {"num_init_states": 4, "num_candidates": 8, **options}
    env = make_env("drawer_open", num_envs, seed=seed, **options)
    assert isinstance(env, MetaWorldEnv)
    return env


def start(env: MetaWorldEnv, mask: np.ndarray | None = None) -> EnvState:
    env.reset(mask)
    return env.follow(np.tile(np.arange(4), (env.num_envs, 2, 2, 1)), mask)


def roll(env: MetaWorldEnv, steps: int, seed: int = 0) -> list[EnvState]:
    rng = np.random.default_rng(seed)
    return [
        env.step(rng.uniform(-1, 1, (env.num_envs, 4)).astype(np.float32)) for _ in range(steps)
    ]


def assert_equal(a: list[EnvState], b: list[EnvState]) -> None:
    for x, y in zip(a, b, strict=True):
        for name in EnvState._fields:
            np.testing.assert_array_equal(getattr(x, name), getattr(y, name), err_msg=name)


def test_equal_arguments_give_equal_bits_whatever_the_threads():
    runs = []
    for threads in (1, 2):
        env = make(seed=3, num_threads=threads)
        runs.append([start(env), *roll(env, 4), start(env), *roll(env, 4)])
        env.close()
    assert_equal(*runs)


def test_a_stream_depends_on_its_index_only():
    few, many = make(2), make(4)
    for _ in range(3):
        a, b = few.reset(), many.reset()
        np.testing.assert_array_equal(a.points, b.points[:2])
    few.close()
    many.close()


def test_pools_are_disjoint():
    def pool(split, seed):
        return {t.data for t in initial_states("drawer-open-v3", split, seed, 50)}

    pools = [pool("train", 0), pool("train", 1), pool("eval", 0), pool("demos", 0)]
    assert [len(p) for p in pools] == [50] * 4
    assert len(set.union(*pools)) == 200
    assert pools[0] < {t.data for t in initial_states("drawer-open-v3", "train", 0, 60)}
    with pytest.raises(ValueError, match="count"):
        initial_states("drawer-open-v3", "train", 0, 5001)


def test_truncation_at_the_time_limit_then_frozen_until_reset():
    env = make(2, episode_length=10)
    start(env)
    states = roll(env, 5)
    assert [s.truncated.tolist() for s in states] == [[False] * 2] * 3 + [[True] * 2] * 2
    assert env.state()["elapsed"].tolist() == [10, 10]
    np.testing.assert_array_equal(states[3].keypoints, states[4].keypoints)  # 3 + 3 + 3 + 1
    assert not start(env).truncated.any()
    assert not roll(env, 1)[0].truncated.any()
    env.close()


def test_partial_reset_leaves_the_others_alone():
    env, twin = make(2), make(2)
    for e in (env, twin):
        start(e)
        roll(e, 2)
    before = roll(env, 1, seed=5)[0]
    roll(twin, 1, seed=5)
    after = start(env, np.array([True, False]))
    np.testing.assert_array_equal(after.keypoints[1], before.keypoints[1])
    assert np.abs(after.proprio[0] - before.proprio[0]).max() > 0
    ahead, expected = roll(env, 2, seed=6), roll(twin, 2, seed=6)
    for a, b in zip(ahead, expected, strict=True):
        np.testing.assert_array_equal(a.keypoints[1], b.keypoints[1])
    env.close()
    twin.close()


def test_chosen_initial_states():
    env = make(2)
    found = env.reset(init_states=np.array([2, 2]))
    np.testing.assert_array_equal(found.points[0], found.points[1])
    with pytest.raises(ValueError, match="0 to 3"):
        env.reset(init_states=np.array([0, 4]))
    env.close()


def test_state_round_trip_in_place_and_in_a_new_process():
    env = make(3, episode_length=60, env_reward=True, occlusion=True)
    start(env)
    roll(env, 5)
    saved = env.state()
    frozen = {key: value.copy() for key, value in saved.items()}

    def go_on(e: MetaWorldEnv) -> list[EnvState]:
        return [*roll(e, 5, seed=7), start(e, np.array([True, False, True])), *roll(e, 5, seed=8)]

    first = go_on(env)
    for key, value in saved.items():
        np.testing.assert_array_equal(value, frozen[key], err_msg=key)  # a copy, not a view
    env.set_state(saved)
    assert_equal(go_on(env), first)
    env.close()
    other = make(3, episode_length=60, env_reward=True, occlusion=True, num_threads=1)
    other.set_state(saved)
    assert_equal(go_on(other), first)
    other.close()
    with pytest.raises(ValueError, match="of 3 environments, not of 2"):
        make(2).set_state(saved)


def test_misuse_is_named():
    env = make(2)
    with pytest.raises(RuntimeError, match="reset and follow"):
        env.step(np.zeros((2, 4)))
    with pytest.raises(ValueError, match="all environments"):
        env.reset(np.array([True, False]))
    env.reset()
    with pytest.raises(ValueError, match="0 to 7"):
        env.follow(np.full((2, 2, 2, 1), 8))
    start(env)
    with pytest.raises(ValueError, match="NaN"):
        env.step(np.full((2, 4), np.nan))
    env.close()


@pytest.mark.filterwarnings("ignore")
def test_an_unstable_simulation_is_truncated_and_the_rest_goes_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo writes MUJOCO_LOG.TXT
    env = make(2)
    start(env)
    before = roll(env, 1)[0]
    env._steppers[0].data.qvel[:] = np.nan
    after = roll(env, 1)[0]
    assert after.truncated.tolist() == [True, False]
    assert not after.visibility[0].any() and after.visibility[1].any()
    np.testing.assert_array_equal(after.keypoints[0], before.keypoints[0])
    assert all(np.isfinite(getattr(after, f)).all() for f in ("keypoints", "proprio", "env_reward"))
    assert env.num_unstable == 1
    start(env, np.array([True, False]))
    assert not roll(env, 1)[0].truncated.any()
    env.close()


def test_a_failing_renderer_gives_none_and_disturbs_nothing(monkeypatch):
    env, twin = make(1), make(1)
    monkeypatch.setattr(mujoco, "Renderer", lambda *_: (_ for _ in ()).throw(OSError("no GL")))
    runs = []
    for e in (env, twin):
        start(e)
        if e is env:
            assert e.render(0, 0) is None
        runs.append(roll(e, 3))
        e.close()
    assert_equal(*runs)


def test_rendering_does_not_change_the_simulation():
    env, twin = make(1), make(1)
    start(env)
    start(twin)
    image = env.render(0, 1)
    if image is None:
        pytest.skip("no OpenGL back end works here")
    assert image.shape == (256, 256, 3)
    assert image.std() > 10
    assert_equal(roll(env, 3), roll(twin, 3))
    env.close()
    twin.close()


def test_scripted_actions_solve_the_task():
    env = make(2, action_repeat=1, episode_length=120)
    start(env)
    success = np.zeros(2, bool)
    for _ in range(120):
        success |= env.step(env.scripted_actions()).success
    assert success.all()
