"""MuJoCo, imported in one place, so that the way it draws is chosen before the import, which reads it once."""

import ctypes.util
import os
import sys

from metalib.errors import MetalibError


def choose_renderer() -> str:
    """Set ``MUJOCO_GL`` where it is unset and there is no display, and return what is chosen (empty: none).

    EGL is preferred, OSMesa second; both draw without a display. Where neither library is installed nothing is
    chosen, and :mod:`metalib.locomotion.rendering` says so instead of letting OpenGL abort the process.
    """
    chosen = os.environ.get("MUJOCO_GL", "").lower()
    if chosen or sys.platform != "linux" or os.environ.get("DISPLAY"):
        return chosen or "glfw"
    for name, library in (("egl", "EGL"), ("osmesa", "OSMesa")):
        if ctypes.util.find_library(library):
            os.environ["MUJOCO_GL"] = name
            return name
    return ""


RENDERER = choose_renderer()

try:
    import mujoco
    from mujoco.batch import Batch
except (RuntimeError, AttributeError) as error:  # what the libraries behind MUJOCO_GL raise where they are missing
    raise MetalibError(
        f"MuJoCo cannot be imported with MUJOCO_GL={os.environ.get('MUJOCO_GL')} ({error}); "
        "unset MUJOCO_GL, or set it to egl or osmesa and install libegl1 or libosmesa6"
    ) from error

__all__ = ["RENDERER", "Batch", "mujoco"]
