"""Facts of the machine that measurements depend on; neither its name nor the time."""

import os
import platform
import resource
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("torch", "numpy", "jax", "jaxlib", "optax", "higher", "torchopt")
_STATUS = Path("/proc/self/status")


def facts() -> dict[str, str | int | float | bool | None]:
    """Return CPU, memory, operating system, Python and C++ compiler."""
    return {
        "cpu": cpu_model(),
        "cores": len(cores()),
        "cores_are_pinned": hasattr(os, "sched_setaffinity"),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "os": f"{platform.system()} {platform.release().partition('-')[0]}",  # without the build's name
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "cxx": _compiler(),
    }


def versions() -> dict[str, str | None]:
    """Return the versions of the libraries that are compared; None for one that is not installed."""
    return package_versions(PACKAGES)


def package_versions(names: Sequence[str]) -> dict[str, str | None]:
    """Return the versions of packages; None for one that is not installed."""
    return {name: _version(name) for name in names}


def cores() -> list[int]:
    """Return the processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def cpu_model() -> str:
    """Return the processor's name."""
    cpu_info = Path("/proc/cpuinfo")
    lines = cpu_info.read_text().splitlines() if cpu_info.exists() else []
    named = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return named or platform.processor() or platform.machine()


def peak_resident_mib() -> float:
    """Return the most memory this process has held so far."""
    if _STATUS.exists():
        # Not ru_maxrss, which on Linux begins with what the parent held when it started this process.
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _compiler() -> str | None:
    for name in (os.environ.get("CXX"), "g++", "clang++"):
        if name and shutil.which(name):
            told = subprocess.run([name, "--version"], capture_output=True, text=True, check=False).stdout
            return told.splitlines()[0] if told else name
    return None
