"""Each factor changes what it says and nothing else."""

import numpy as np
import pytest

from relam_jax.envs import make_env
from relam_jax.envs.rendering import SceneRenderer
from relam_jax.envs.scene import camera_pose
from relam_jax.envs.scripted import initial_states, make_simulation, reset_simulation
from relam_jax.envs.shifted_scene import scene_edit
from relam_jax.envs.shifts import FACTORS, NO_SHIFT, Shift, choose_factors, why_not
from relam_jax.envs.simulator import mujoco
from relam_jax.envs.stepper import STATE
from relam_jax.envs.tasks import resolve_task
from relam_jax.geometry import project

TASK = "drawer_open"
POINTS = np.tile(np.arange(4), (1, 2, 2, 1))


def start(shift=NO_SHIFT, **options):
    env = make_env(
        TASK, 1, seed=0, split="eval", num_init_states=1, num_threads=1, shift=shift, **options
    )
    candidates = env.reset()
    return env, candidates, env.follow(POINTS)


def played(shift, steps=25, **options):
    """All that an episode of the scripted expert shows, and the model it ran in."""
    env, candidates, first = start(shift, action_repeat=1, **options)
    states = [first, *(env.step(env.scripted_actions()) for _ in range(steps))]
    env.close()
    return candidates, states, env._steppers[0].model


@pytest.fixture(scope="module")
def plain():
    return played(NO_SHIFT)


def same(a, b):
    return all(
        np.array_equal(x, y)
        for one, other in zip((a[0], *a[1]), (b[0], *b[1]), strict=True)
        for x, y in zip(one, other, strict=True)
    )


@pytest.mark.parametrize(
    "shift",
    [Shift("size", 1.0), Shift("keypoint_noise", 0.0), Shift("table_texture", 0.6)],
    ids=str,
)
def test_what_changes_no_geometry_is_the_same_bit_for_bit(plain, shift):
    assert same(played(shift), plain)


def test_cameras_move_with_candidates_and_projection(plain):
    for factor, level, towards in (("camera_position", 10.0, -1), ("camera_angle", 5.0, 1)):
        shift = Shift(factor, level)
        env, candidates, state = start(shift)
        old = [camera_pose(env._template.env.model, c) for c in env.spec.cameras]
        for view, (before, now) in enumerate(zip(old, env.cameras, strict=True)):
            gap = now.position - before.position
            turned = np.degrees(np.arccos((np.trace(now.rotation.T @ before.rotation) - 1) / 2))
            if factor == "camera_position":
                assert np.allclose(gap, 0.1 * before.rotation[:, 0]) and turned < 1e-5
            else:
                assert np.allclose(gap, 0) and turned == pytest.approx(5.0)
            # found where the moved camera sees the entity, and followed through it
            labels, points = env.labels(0, view), candidates.points[0, view]
            rows = (points * len(labels)).astype(int)
            for entity in range(2):
                assert (labels[rows[entity, :, 1], rows[entity, :, 0]] == entity + 1).mean() > 0.9
            assert np.allclose(state.keypoints[0, view], points[:, :4], atol=1e-5)
            world = env._followed.world(env._xpos, env._xmat)[0, view]
            assert ((project(world, now) - project(world, before))[..., 0] * towards > 0.03).all()
        env.close()
    assert not same(played(Shift("camera_angle", 2.0), steps=1), (plain[0], plain[1][:2]))


def test_physics_of_the_object_is_in_the_model_that_steps(plain):
    old = plain[2]
    body, case = old.body("drawer_link").id, old.body("drawercase_link").id
    dof = old.body_dofadr[body]

    model = played(Shift("friction", 2.0), steps=1)[2]
    assert np.allclose(model.geom_friction, 2 * old.geom_friction)
    assert model.dof_damping[dof] == 2 * old.dof_damping[dof]
    assert np.array_equal(np.delete(model.dof_damping, dof), np.delete(old.dof_damping, dof))
    assert np.array_equal(model.body_mass, old.body_mass)

    model = played(Shift("mass", 4.0), steps=1)[2]
    expected = old.body_mass.copy()
    expected[body] *= 4
    assert np.allclose(model.body_mass, expected)
    assert np.allclose(model.body_inertia[body], 4 * old.body_inertia[body])
    own = [m.dof_M0[dof] - m.dof_armature[dof] for m in (old, model)]
    assert own[1] == pytest.approx(4 * own[0])

    model = played(Shift("size", 1.2), steps=1)[2]
    unit = np.isin(old.geom_bodyid, [body, case])
    assert np.allclose(model.geom_rbound[unit], 1.2 * old.geom_rbound[unit])
    assert np.allclose(model.geom_rbound[~unit], old.geom_rbound[~unit])
    assert np.allclose(model.body_pos[case], 1.2 * old.body_pos[case])
    assert np.allclose(model.body_mass, old.body_mass)
    joint = old.body_jntadr[body]
    assert np.allclose(model.jnt_range[joint], 1.2 * old.jnt_range[joint])


def test_a_larger_puck_stands_on_the_table_too():
    spec = resolve_task("push")
    low = []
    for shift in (NO_SHIFT, Shift("size", 1.2)):
        env = make_simulation(spec.env_id, scene_edit(shift, spec))
        reset_simulation(env, initial_states(spec.env_id, "demos", 0, 1)[0])
        geom = env.model.geom("objGeom").id
        low.append(env.data.geom_xpos[geom][2] - env.model.geom_size[geom][1])
    assert low[1] == pytest.approx(low[0], abs=1e-3)


def test_keypoint_noise_has_its_deviation_and_the_same_moment_the_same_noise(plain):
    candidates, noisy, _ = played(Shift("keypoint_noise", 0.01), steps=25)
    assert np.array_equal(candidates.points, plain[0].points)
    gap = np.stack([a.keypoints - b.keypoints for a, b in zip(noisy, plain[1], strict=True)])
    assert gap.std() == pytest.approx(0.01, rel=0.1) and abs(gap.mean()) < 0.002
    assert np.abs(gap[1] - gap[0]).max() > 0.005, "each moment has its own"
    again = played(Shift("keypoint_noise", 0.01), steps=1)[1]
    assert np.array_equal(again[1].keypoints, noisy[1].keypoints)


def test_images_get_noise_and_blur():
    grey = np.full((64, 64, 3), 128, np.uint8)
    grey[:, 32:] = 190
    noisy = Shift("image_noise", 10.0).image(grey, (3, 4))
    assert (noisy.astype(float) - grey).std() == pytest.approx(10, rel=0.05)
    assert np.array_equal(noisy, Shift("image_noise", 10.0).image(grey, (3, 4)))
    assert not np.array_equal(noisy, Shift("image_noise", 10.0).image(grey, (3, 5)))
    blurred = Shift("blur", 2.0).image(grey, (0,))
    assert np.abs(np.diff(blurred[0, :, 0].astype(int))).max() < 20
    env, _, _ = start(Shift("image_noise", 10.0))
    if (seen := env.render(0, 1)) is not None:
        clean = env._renderer.render(*env._picture(0), 1)
        assert 5 < (seen.astype(float) - clean).std() < 11
    env.close()


def test_an_occluder_hides_points_and_nothing_touches_it(plain):
    seen = [played(shift, occlusion=True)[1] for shift in (NO_SHIFT, Shift("occluder", 0.1))]
    share = [np.mean([s.visibility.mean() for s in states]) for states in seen]
    assert share[1] < share[0] - 0.1
    assert all(np.array_equal(a.proprio, b.proprio) for a, b in zip(*seen, strict=True))


LOOKS = [f for f in FACTORS.values() if f.where == "looks" or f.name == "occluder"]


def picture(shift):
    spec = resolve_task(TASK)
    env = make_simulation(spec.env_id, scene_edit(shift, spec))
    reset_simulation(env, initial_states(spec.env_id, "demos", 0, 1)[0])
    state = np.empty(mujoco.mj_stateSize(env.model, STATE))
    mujoco.mj_getState(env.model, env.data, state, STATE)
    cameras = tuple(camera_pose(env.model, camera) for camera in spec.cameras[1:])
    try:
        renderer = SceneRenderer(env.model, cameras, 128)
    except RuntimeError:
        pytest.skip("no OpenGL back end works here")
    image = renderer.render(env.model, state, 0).astype(int)
    renderer.close()
    return image


@pytest.fixture(scope="module")
def lit():
    return picture(NO_SHIFT)


@pytest.mark.parametrize("factor", LOOKS, ids=lambda f: f.name)
def test_the_scene_looks_different(factor, lit):
    image = picture(Shift(factor.name, factor.levels[-1]))
    changed = (np.abs(image - lit).max(-1) > 8).mean()
    drawer = 0.02  # of the image, about
    small = factor.name.startswith("object_")
    assert (0.003 < changed < 3 * drawer) if small else changed > 0.05
    if factor.name == "light_intensity":
        assert image.mean() > lit.mean()
    if factor.name == "light_colour":  # at + blue is missing
        assert image[96:, :, 2].max() < 5 < lit[96:, :, 2].min()


def test_factors_by_name_or_group_and_why_some_do_not_apply():
    assert choose_factors(()) == tuple(FACTORS)
    assert choose_factors(("physics", "blur")) == ("friction", "mass", "size", "blur")
    with pytest.raises(ValueError, match="unknown factor 'colr': choose among camera, light"):
        choose_factors(("colr",))
    none = {f for f in FACTORS if why_not(f, "projected", "metaworld")}
    looks = {f.name for f in FACTORS.values() if f.where == "looks"}
    assert none == looks | {"image_noise", "blur"}
    assert {f for f in FACTORS if why_not(f, "tracked", "metaworld")} == {"keypoint_noise"}
    assert why_not("mass", "projected", "maniskill") and not why_not(
        "camera_angle", "projected", "maniskill"
    )
    with pytest.raises(ValueError, match="mass: only Meta-World's scenes"):
        make_env("pick_cube", 1, seed=0, shift=Shift("mass", 2.0))
