"""The environment of commands that the tools start."""

import os
import sys
from pathlib import Path


def with_this_python() -> dict[str, str]:
    """Return the environment in which ``python`` is this one, for DVC's stages, and no project is named to them."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**{name: value for name, value in os.environ.items() if name != "DVC_ROOT"}, "PATH": path}
