"""Pictures of a simulation: which OpenGL back end works here, and a fast off-screen renderer.

Import this module before `mujoco` (every module of `relam_jax.envs` does): MuJoCo decides at import which
OpenGL back end it uses, from the environment variable MUJOCO_GL.
"""

from __future__ import annotations

import ctypes
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, UInt8

from relam_jax.geometry import CameraPose

if TYPE_CHECKING:
    import mujoco

HOW_TO_INSTALL = (
    "no off-screen OpenGL works here: on Debian or Ubuntu install the package libegl1 together with "
    "libgl1-mesa-dri (EGL), or libosmesa6 (OSMesa)"
)


def _egl_works() -> bool:
    """Whether libEGL has a device whose display can be initialised (what MuJoCo's EGL context needs)."""
    try:
        egl = ctypes.CDLL("libEGL.so.1")
        egl.eglGetProcAddress.restype = ctypes.c_void_p
        egl.eglGetProcAddress.argtypes = [ctypes.c_char_p]
        query = egl.eglGetProcAddress(b"eglQueryDevicesEXT")
        get_display = egl.eglGetProcAddress(b"eglGetPlatformDisplayEXT")
        if not query or not get_display:
            return False
        pointer, integer = ctypes.c_void_p, ctypes.c_int
        query = ctypes.CFUNCTYPE(ctypes.c_uint, integer, pointer, pointer)(query)
        get_display = ctypes.CFUNCTYPE(pointer, ctypes.c_uint, pointer, pointer)(get_display)
        egl.eglInitialize.argtypes = [pointer, pointer, pointer]
        devices, count = (pointer * 16)(), integer(0)
        if not query(16, ctypes.cast(devices, pointer), ctypes.addressof(count)):
            return False
        platform_device = 0x313F  # EGL_PLATFORM_DEVICE_EXT
        for device in devices[: count.value]:
            display = get_display(platform_device, device, None)
            if display and egl.eglInitialize(display, None, None):
                return True
    except (OSError, AttributeError):
        pass
    return False


def _osmesa_works() -> bool:
    for name in ("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so"):
        try:
            ctypes.CDLL(name)
            return True
        except OSError:
            continue
    return False


def choose_gl() -> str:
    """Set MUJOCO_GL if nobody has: `egl`, else `osmesa`, else `disabled`. Returns what is set.

    Does nothing once MuJoCo has been imported (its choice is made then).
    """
    if "MUJOCO_GL" not in os.environ and "mujoco" not in sys.modules and sys.platform == "linux":
        works = "egl" if _egl_works() else "osmesa" if _osmesa_works() else "disabled"
        os.environ["MUJOCO_GL"] = works
    return os.environ.get("MUJOCO_GL", "")


class SceneRenderer:
    """Renders one model from fixed cameras, always on one thread of its own (OpenGL contexts are per thread).

    Shadows, multisampling and reflections are off (70 times faster in software); sites, which Meta-World
    uses to show goals, are invisible. The renderer has its own copy of the model.
    """

    def __init__(self, model_path: str, cameras: tuple[CameraPose, ...], size: int = 256) -> None:
        """Raises RuntimeError, in one sentence, where no OpenGL back end works."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="renderer")
        self._renderer: Any = None
        try:
            self._thread.submit(self._create, model_path, cameras, size).result()
        except Exception as error:
            self._thread.shutdown()
            raise RuntimeError(f"{HOW_TO_INSTALL} (MUJOCO_GL={choose_gl()}: {error})") from error

    def _create(self, model_path: str, cameras: tuple[CameraPose, ...], size: int) -> None:
        import mujoco

        model = mujoco.MjModel.from_xml_path(model_path)
        model.vis.quality.shadowsize = 0
        model.vis.quality.offsamples = 0
        model.vis.global_.offwidth = model.vis.global_.offheight = size
        model.mat_reflectance[:] = 0
        model.site_rgba[:, 3] = 0
        for slot, camera in enumerate(cameras):  # the first cameras of the model become ours
            model.cam_bodyid[slot] = 0
            model.cam_mode[slot] = mujoco.mjtCamLight.mjCAMLIGHT_FIXED
            model.cam_pos[slot] = camera.position
            mujoco.mju_mat2Quat(model.cam_quat[slot], np.ascontiguousarray(camera.rotation).ravel())
            model.cam_fovy[slot] = camera.fovy
        self._model, self._data = model, mujoco.MjData(model)
        self._renderer = mujoco.Renderer(model, size, size)

    def render(
        self, model: mujoco.MjModel, state: Float[np.ndarray, " S"], view: int
    ) -> UInt8[np.ndarray, "H W 3"]:
        """Image of `state` (mjSTATE_INTEGRATION) in the world of `model` (its body positions are copied)."""
        return self._thread.submit(self._render, model.body_pos.copy(), state, view).result()

    def _render(self, body_pos: np.ndarray, state: np.ndarray, view: int) -> np.ndarray:
        import mujoco

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
