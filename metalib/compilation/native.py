"""C++ sources of this project as loaded libraries, built on first use."""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import torch

FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-std=c++20", "-fPIC", "-shared", "-Wno-psabi")
HEADERS = Path(__file__).parent
NO_COMPILER = "no C++ compiler found (Debian and Ubuntu: apt-get install g++)"


def compiler() -> str | None:
    """Return the C++ compiler that PyTorch would use here; None if there is none."""
    return next((name for name in (os.environ.get("CXX"), "g++", "clang++") if name and shutil.which(name)), None)


@functools.cache
def load(
    source: Path, folder: Path, cxx: str, extra_flags: Sequence[str] = (), mode: int = ctypes.DEFAULT_MODE
) -> ctypes.CDLL | None:
    """Build ``source`` into ``folder`` unless it is there, and load it; None if it cannot be built or kept there.

    Args:
        source: a C++ file.
        folder: where libraries are kept between runs, each under a key of all it depends on.
        cxx: the compiler, see :func:`compiler`.
        extra_flags: a tuple, of what the compiler is told after the source: where headers and libraries are.
        mode: of ``ctypes.CDLL``.
    """
    depends_on = (machine_key(source), cxx, _version(cxx), tuple(extra_flags))
    key = hashlib.sha256(repr(depends_on).encode()).hexdigest()[:16]
    library = folder / f"{source.stem}-{key}.so"
    command = [cxx, *FLAGS, f"-I{HEADERS}", str(source), *extra_flags]
    if not library.exists() and not _built(command, library):
        return None
    return ctypes.CDLL(str(library), mode=mode)


def obstacle(source: Path, folder: Path) -> str | None:
    """Return why ``source`` cannot be built here and kept in ``folder``; None if it can."""
    cxx = compiler()
    if cxx is None:
        return NO_COMPILER
    return None if load(source, folder, cxx) is not None else f"{cxx} cannot build {source.name} into {folder}"


def _built(command: Sequence[str], library: Path) -> bool:
    """Build a library as a whole or not at all; return whether it is there."""
    partial = library.with_suffix(f".{os.getpid()}.partial")
    try:
        library.parent.mkdir(parents=True, exist_ok=True)
        if subprocess.run([*command, "-o", str(partial)], capture_output=True, check=False).returncode != 0:
            partial.unlink(missing_ok=True)
            return False
        partial.replace(library)
    except OSError:
        return False
    return True


def _version(cxx: str) -> str:
    """Return what the compiler says of itself, so that an upgraded one builds anew."""
    said = subprocess.run([cxx, "--version"], capture_output=True, text=True, check=False)
    return said.stdout


def machine_key(source: Path) -> str:
    """Return what compiled code depends on: its source, the headers, and the machine, for folders are shared."""
    headers = [path for folder in (HEADERS, source.parent) for path in sorted(folder.glob("*.h"))]
    text = "".join(path.read_text() for path in (source, *headers))
    cpu_info = Path("/proc/cpuinfo")
    lines = cpu_info.read_text().splitlines() if cpu_info.exists() else []
    features = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    return repr((text, FLAGS, torch.__version__, platform.machine(), features))
