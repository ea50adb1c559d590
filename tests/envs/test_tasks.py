import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from relam_jax.envs import make_env
from relam_jax.envs.metaworld import MetaWorldEnv
from relam_jax.envs.protocol import BatchedEnv
from relam_jax.envs.tasks import PRESETS, canonical_name, resolve_task, task_names


@pytest.mark.parametrize("name", ["drawer_open", "drawer-open", "drawer-open-v3", " Drawer_Open "])
def test_spellings_of_a_name(name: str):
    assert resolve_task(name) is PRESETS["drawer_open"]


def test_every_task_has_a_name_and_presets_are_among_them():
    names = task_names()
    assert len(names) == 50
    assert {n for n, s in PRESETS.items() if s.simulator == "metaworld"} <= set(names)
    for name in names:
        spec = resolve_task(name)
        assert spec.name == name
        assert canonical_name(spec.env_id) == name


@pytest.mark.parametrize("name", ["pick_cube", "pick-cube", "PickCube-v1"])
def test_spellings_of_a_maniskill_name(name: str):
    assert resolve_task(name) is PRESETS["pick_cube"]
    other = resolve_task("LiftPegUpright-v1")
    assert (other.simulator, other.name, other.env_id) == ("maniskill", *["LiftPegUpright-v1"] * 2)


def test_unknown_name_is_one_sentence_with_near_matches():
    with pytest.raises(ValueError, match=r"unknown task 'drawer_opn'.*drawer_open") as error:
        make_env("drawer_opn", 1, seed=0)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=r"known tasks: .*window_open"):
        make_env("xyzzy", 1, seed=0)


@pytest.mark.parametrize(
    ("name", "entities"),
    [
        ("faucet_open", ("gripper", "object")),
        ("stick_push", ("gripper", "object")),
        ("reach", ("gripper", "goal")),  # nothing but the robot moves
    ],
)
def test_any_task_works_by_name(name: str, entities: tuple[str, ...]):
    env = make_env(name, 2, seed=0, num_init_states=2, num_candidates=8)
    assert isinstance(env, BatchedEnv)
    assert env.entity_names == entities
    found = env.reset()
    assert found.points.shape == (2, 2, len(entities), 8, 2)
    assert found.visibility.any(-1).all()
    state = env.follow(np.tile(np.arange(4), (2, 2, len(entities), 1)))
    for _ in range(3):
        state = env.step(np.ones((2, env.action_dim), np.float32))
    assert np.isfinite(state.keypoints).all()
    assert state.visibility.any()
    env.close()


def test_one_view_is_the_special_case_and_entities_can_be_named():
    both, first, other = (
        make_env("drawer_open", 1, seed=0, views=views) for views in (None, ["cam0"], ["cam1"])
    )
    points = both.reset().points
    np.testing.assert_array_equal(first.reset().points, points[:, :1])
    assert (first.view_names, other.view_names) == (("cam0",), ("cam1",))
    handle = [env.reset().points[0, -1, 1].mean(0) for env in (both, other)]
    np.testing.assert_allclose(*handle, atol=0.02)
    with pytest.raises(ValueError, match="has the views cam0, cam1, not cam2"):
        make_env("drawer_open", 1, seed=0, views=["cam2"])
    case = replace(PRESETS["drawer_open"], entities=(("case", ("drawercase_link",)),))
    env = MetaWorldEnv(case, 1, seed=0)
    assert env.entity_names == ("case",)
    assert env.reset().visibility.all()


@pytest.mark.parametrize(
    ("option", "value"),
    [("action_repeat", 0), ("episode_length", 501), ("num_candidates", 0), ("num_init_states", 0)],
)
def test_numbers_out_of_range(option: str, value: int):
    with pytest.raises(ValueError, match=re.escape(option)):
        make_env("drawer_open", 1, seed=0, **{option: value})


def test_simulators_need_no_jax_and_truth_needs_no_simulator():
    code = (
        "import sys; from relam_jax.envs import truth; assert 'mujoco' not in sys.modules; "
        "import relam_jax.envs.metaworld; assert not {'jax', 'torch'} & set(sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
