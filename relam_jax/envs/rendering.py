"""Pictures of a simulation: a fast off-screen renderer on a thread of its own."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from relam_jax.envs.decimate import decimate
from relam_jax.envs.scene import Surface, cast, pixel_centres
from relam_jax.envs.simulator import MjModel, choose_gl, mujoco
from relam_jax.geometry import CameraPose

HOW_TO_INSTALL = (
    "no off-screen OpenGL works here: on Debian or Ubuntu install the packages libegl1 and "
    "libgl1-mesa-dri (EGL), or libosmesa6 (OSMesa)"
)

DETAIL = 0.01
"""metres: a pixel or two of the default cameras' images."""


class RayRenderer:
    """Plain pictures without OpenGL, a ray a pixel: bodies in their colour, darker at a slant.

    Stands in for `SceneRenderer` where clips are recorded on a machine that cannot render.
    """

    def __init__(self, model: MjModel, cameras: tuple[CameraPose, ...], size: int = 256) -> None:
        self._model, self._data = copy.copy(model), mujoco.MjData(model)
        self._cameras, self._pixels = cameras, pixel_centres(size)
        first = np.zeros(model.nbody, int)
        first[model.geom_bodyid[::-1]] = np.arange(model.ngeom)[::-1]
        self._color = model.geom_rgba[first, :3]

    def _cast(self, model: MjModel, state: np.ndarray, view: int) -> Surface:
        self._model.body_pos[:] = model.body_pos
        mujoco.mj_setState(self._model, self._data, state, mujoco.mjtState.mjSTATE_INTEGRATION)
        mujoco.mj_kinematics(self._model, self._data)
        return cast(self._model, self._data, self._cameras[view], self._pixels)

    def render(
        self, model: MjModel, state: Float[np.ndarray, " S"], view: int
    ) -> UInt8[np.ndarray, "H W 3"]:
        """See `SceneRenderer.render`."""
        surface = self._cast(model, state, view)
        depth = np.where(np.isfinite(surface.depth), surface.depth, 10.0)
        slope = np.hypot(*np.gradient(depth)) * len(depth) / depth
        shade = 0.5 + 0.5 / (1 + slope)
        image = self._color[surface.body] * shade[..., None]
        image[surface.body < 0] = 0
        return (255 * np.clip(image, 0, 1)).astype(np.uint8)

    def depth(
        self, model: MjModel, state: Float[np.ndarray, " S"], view: int
    ) -> Float[np.ndarray, "H W"]:
        """See `SceneRenderer.depth`."""
        return self._cast(model, state, view).depth.astype(np.float32)

    def close(self) -> None:
        """Nothing is to be freed."""


def make_renderer(
    model: MjModel, cameras: tuple[CameraPose, ...], size: int
) -> SceneRenderer | RayRenderer:
    """OpenGL where it works, else rays."""
    try:
        return SceneRenderer(model, cameras, size)
    except RuntimeError:
        return RayRenderer(model, cameras, size)


class SceneRenderer:
    """Renders one model from fixed cameras, on a thread of its own (as OpenGL contexts want).

    Shadows, multisampling and reflections are off (70 times faster in software), what is finer than
    `DETAIL` is left out (twice as fast); sites are invisible. The renderer has its own copy of the
    model.
    """

    def __init__(self, model: MjModel, cameras: tuple[CameraPose, ...], size: int = 256) -> None:
        """Raises RuntimeError, in one sentence, where no OpenGL back end works."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="renderer")
        self._renderer: Any = None
        try:
            self._thread.submit(self._create, model, cameras, size).result()
        except Exception as error:
            self._thread.shutdown()
            raise RuntimeError(f"{HOW_TO_INSTALL} (MUJOCO_GL={choose_gl()}: {error})") from error

    def _create(self, model: MjModel, cameras: tuple[CameraPose, ...], size: int) -> None:
        # Where nothing works this raises; half-made, it or a Renderer would complain when deleted.
        probe = mujoco.GLContext.__new__(mujoco.GLContext)
        probe._context = None
        probe.__init__(size, size)
        probe.free()
        model = copy.copy(model)
        model.vis.quality.shadowsize = 0
        model.vis.quality.offsamples = 0
        model.vis.global_.offwidth = model.vis.global_.offheight = size
        model.mat_reflectance[:] = 0
        model.site_rgba[:, 3] = 0
        decimate(model, DETAIL)
        for slot, camera in enumerate(cameras):  # the first cameras of the model become ours
            model.cam_bodyid[slot] = 0
            model.cam_mode[slot] = mujoco.mjtCamLight.mjCAMLIGHT_FIXED
            model.cam_pos[slot] = camera.position
            mujoco.mju_mat2Quat(model.cam_quat[slot], np.ascontiguousarray(camera.rotation).ravel())
            model.cam_fovy[slot] = camera.fovy
        self._model, self._data = model, mujoco.MjData(model)
        self._renderer = mujoco.Renderer(model, size, size)

    def render(
        self, model: MjModel, state: Float[np.ndarray, " S"], view: int
    ) -> UInt8[np.ndarray, "H W 3"]:
        """Image of `state` (mjSTATE_INTEGRATION), with the fixed bodies where `model` has them."""
        return self._thread.submit(self._render, model.body_pos.copy(), state, view).result()

    def depth(
        self, model: MjModel, state: Float[np.ndarray, " S"], view: int
    ) -> Float[np.ndarray, "H W"]:
        """The same picture's depth: float32, metres along the optical axis."""
        return self._thread.submit(self._depth, model.body_pos.copy(), state, view).result()

    def _depth(self, body_pos: np.ndarray, state: np.ndarray, view: int) -> np.ndarray:
        self._renderer.enable_depth_rendering()
        try:
            return self._render(body_pos, state, view)
        finally:
            self._renderer.disable_depth_rendering()

    def _render(self, body_pos: np.ndarray, state: np.ndarray, view: int) -> np.ndarray:
        self._model.body_pos[:] = body_pos
        mujoco.mj_setState(self._model, self._data, state, mujoco.mjtState.mjSTATE_INTEGRATION)
        mujoco.mj_forward(self._model, self._data)
        self._renderer.update_scene(self._data, camera=view)
        return self._renderer.render().copy()

    def close(self) -> None:
        """Free the OpenGL context (on its thread), so that EGL does not complain at exit."""
        if self._renderer is not None:
            renderer, self._renderer = self._renderer, None
            self._thread.submit(renderer.close).result()
            self._thread.shutdown()
