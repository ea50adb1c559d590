"""MuJoCo and Meta-World, imported once an OpenGL back end has been chosen.

MuJoCo decides at import, from the environment variable MUJOCO_GL, how it will render. Every other
module takes `mujoco` and `metaworld` from here, so that the choice comes first.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import sys
from typing import Any, TypeAlias


def _egl_works() -> bool:
    """Whether libEGL has a device whose display can be initialised, as MuJoCo needs it."""
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


choose_gl()

mujoco: Any = importlib.import_module("mujoco")  # compiled, without type stubs
metaworld: Any = importlib.import_module("metaworld")
importlib.import_module("metaworld.policies")
MjModel: TypeAlias = Any
MjData: TypeAlias = Any
Task: TypeAlias = Any
"""one of Meta-World's initial states"""

__all__ = ["MjData", "MjModel", "Task", "choose_gl", "metaworld", "mujoco"]
