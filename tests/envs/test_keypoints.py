"""Cameras, candidates, projected keypoints; against ray casting and rendered pictures."""

import copy

import cv2
import numpy as np
import pytest

from relam_jax.envs import make_env
from relam_jax.envs.candidates import IMAGE_SIZE
from relam_jax.envs.decimate import decimate
from relam_jax.envs.metaworld import MetaWorldEnv
from relam_jax.envs.rendering import DETAIL
from relam_jax.envs.scene import camera_pose, cast, pixel_centres, rays
from relam_jax.envs.scripted import (
    entity_bodies,
    initial_states,
    make_simulation,
    reset_simulation,
)
from relam_jax.envs.simulator import mujoco
from relam_jax.envs.tasks import Camera, resolve_task
from relam_jax.geometry import project

TASKS = ["drawer_open", "button_press", "window_open"]


@pytest.fixture(scope="module", params=TASKS)
def env(request) -> MetaWorldEnv:
    env = make_env(request.param, 3, seed=0, num_init_states=3, occlusion=True)
    assert isinstance(env, MetaWorldEnv)
    return env


def test_cameras_are_upright_and_roughly_orthogonal(env: MetaWorldEnv):
    top, bottom = np.array([0.0, 0.6, 0.3]), np.array([0.0, 0.6, 0.0])  # above, on the table
    for camera in env.cameras:
        above, below = project(top, camera), project(bottom, camera)
        assert above[1] < below[1]
        assert abs(above[0] - below[0]) < 0.05
        np.testing.assert_allclose(np.linalg.det(camera.rotation), 1)
    axes = [camera.rotation[:, 2] for camera in env.cameras]
    assert np.degrees(np.arccos(axes[0] @ axes[1])) > 60


def test_moved_camera():
    model = make_simulation("drawer-open-v3").model
    pose = camera_pose(model, Camera("corner", (1.0, 0.0, 0.8), (0.0, 0.7, 0.1), 40.0))
    np.testing.assert_allclose(project(np.array([0.0, 0.7, 0.1]), pose), 0.5)
    assert pose.fovy == 40.0
    with pytest.raises(ValueError, match="no camera 'behindGripper' that is fixed"):
        camera_pose(model, Camera("behindGripper"))


def test_rays_are_the_inverse_of_projection(env: MetaWorldEnv):
    points = pixel_centres(8)
    for camera in env.cameras:
        world = camera.position + 1.7 * rays(points, camera)
        np.testing.assert_allclose(project(world, camera), points, atol=1e-12)


def test_candidates_are_deterministic_and_spread_over_the_mask(env: MetaWorldEnv):
    found = env.reset(init_states=np.arange(3))
    again = env.reset(init_states=np.arange(3))
    np.testing.assert_array_equal(found.points, again.points)
    assert found.visibility.all()  # every entity shows more than 32 pixels
    assert np.all((found.points > 0) & (found.points < 1))
    pixels = found.points.astype(float) * IMAGE_SIZE - 0.5
    np.testing.assert_allclose(pixels, np.round(pixels), atol=1e-3)
    flat = np.round(pixels).reshape(-1, 32, 2)
    assert all(len(np.unique(p, axis=0)) == 32 for p in flat)
    grid = pixel_centres(IMAGE_SIZE)
    for i, stepper in enumerate(env._steppers):
        stepper.bind_model()
        for v, camera in enumerate(env.cameras):
            body = cast(stepper.model, stepper.data, camera, grid).body
            for e, bodies in enumerate(env._entities):
                mask = grid[np.isin(body, bodies)]
                for side in (np.min, np.max):  # the points keep off edges: not on finger tips
                    inside = side(found.points[i, v, e], axis=0) - side(mask, axis=0)
                    assert np.abs(inside).max() < 0.06


def test_visible_points_lie_on_their_entity(env: MetaWorldEnv):
    """Twelve agent steps later: the ray through each visible keypoint hits the entity."""
    env.reset(init_states=np.arange(3))
    state = env.follow(np.tile(np.arange(32), (3, 2, len(env.entity_names), 1)))
    rng, hits = np.random.default_rng(0), []
    for _ in range(12):
        state = env.step(rng.uniform(-1, 1, (3, 4)))
    for i, stepper in enumerate(env._steppers):
        stepper.bind_model()
        for v, camera in enumerate(env.cameras):
            for e, bodies in enumerate(env._entities):
                points = state.keypoints[i, v, e][state.visibility[i, v, e]].astype(float)
                surface = cast(stepper.model, stepper.data, camera, points)
                hits.append(np.isin(surface.body, bodies))
    assert len(np.concatenate(hits)) > 200
    assert np.concatenate(hits).mean() >= 0.97


def test_visible_points_lie_on_their_entity_in_the_rendered_picture(env: MetaWorldEnv):
    env.reset(init_states=np.arange(3))
    state = env.follow(np.tile(np.arange(32), (3, 2, len(env.entity_names), 1)))
    if env.render(0, 0) is None:
        pytest.skip("no OpenGL back end works here")
    rng = np.random.default_rng(0)
    for _ in range(12):
        state = env.step(rng.uniform(-1, 1, (3, 4)))
    scene = env._renderer
    assert scene is not None
    hits = []
    scene._thread.submit(scene._renderer.enable_segmentation_rendering).result()
    for i in range(3):
        for v in range(2):
            stepper = env._steppers[i]
            args = (scene._render, stepper._body_pos, stepper.physics(), v)
            picture = scene._thread.submit(*args).result()
            is_geom = picture[..., 1] == mujoco.mjtObj.mjOBJ_GEOM
            geom_body = env._template.env.model.geom_bodyid
            body = np.where(is_geom, geom_body[picture[..., 0]], -1)
            for e, bodies in enumerate(env._entities):
                points = state.keypoints[i, v, e][state.visibility[i, v, e]]
                column, row = np.minimum((points * 256).astype(int), 255).T
                hits.append(np.isin(body[row, column], bodies))
    env.close()
    assert np.concatenate(hits).mean() >= 0.97


def test_occlusion_hides_what_is_behind(env: MetaWorldEnv):
    """A point on the near side of the gripper's flange is seen, one 10 cm behind it is hidden."""
    stepper = env._steppers[0]
    stepper.restore(env._template.initial(0))
    from relam_jax.envs.projected import hidden

    points = np.zeros((2, 1, 2, 3))
    for v, camera in enumerate(env.cameras):
        centre = stepper.data.body("right_hand").xpos
        surface = cast(stepper.model, stepper.data, camera, project(centre, camera)[None])
        near = camera.position + rays(project(centre, camera), camera) * surface.depth[0]
        away = rays(project(centre, camera), camera)
        points[v, 0] = near, near + 0.1 * away
    got = hidden(stepper.model, stepper.data, points, env.cameras)
    np.testing.assert_array_equal(got[:, 0], [[False, True]] * 2)


def test_the_bodies_that_are_the_object():
    for task, names in {"drawer_open": ["drawer_link"], "hammer": ["hammer", "nail_link"]}.items():
        spec = resolve_task(task)
        model = make_simulation(spec.env_id).model
        assert [model.body(b).name for b in dict(entity_bodies(spec))["object"]] == names


def test_a_goal_that_no_object_gives_away_is_marked_and_is_an_entity():
    env = make_env("push", 3, seed=0, num_candidates=8, num_init_states=3)
    assert env.entity_names == ("gripper", "object", "goal")
    candidates = env.reset(init_states=np.arange(3))
    for row in range(3):
        target = env._steppers[row].shell._target_pos  # type: ignore[attr-defined]
        for v, camera in enumerate(env.cameras):
            assert candidates.visibility[row, v, 2].sum() >= 5
            points = candidates.points[row, v, 2]
            assert np.abs(points - project(target, camera)).max() < 0.025
    env.follow(np.zeros((3, 2, 3, 1), int))
    before = env.step(np.ones((3, 4), np.float32)).keypoints[:, :, 2]
    np.testing.assert_array_equal(env.step(np.ones((3, 4), np.float32)).keypoints[:, :, 2], before)
    env.close()


def test_a_thinned_robot_looks_the_same():
    """Compared as pictures: few pixels differ, and the silhouette does so by a pixel or two."""
    env = make_simulation("drawer-open-v3")
    reset_simulation(env, initial_states("drawer-open-v3", "eval", 0, 1)[0])
    thin = copy.copy(env.model)
    decimate(thin, DETAIL)
    assert thin.mesh_facenum.sum() < 0.25 * env.model.mesh_facenum.sum()
    np.testing.assert_array_equal(env.model.mesh_vert, thin.mesh_vert)
    depths = []
    for model in (env.model, thin):
        try:
            renderer = mujoco.Renderer(model, 256, 256)
        except Exception:
            pytest.skip("no OpenGL back end works here")
        view = mujoco.MjvCamera()
        view.type, view.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, model.camera("corner4").id
        renderer.enable_depth_rendering()
        renderer.update_scene(env.data, camera=view)
        depths.append(renderer.render().copy())
        renderer.close()
    off = np.abs(depths[0] - depths[1]) > 0.02
    assert 0 < off.mean() < 0.01, "holes would show what is behind"
    kernel = np.ones((3, 3), np.uint8)
    assert cv2.erode(off.astype(np.uint8), kernel).sum() < 20, "no spot is 3 pixels wide"
