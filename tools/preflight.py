"""Say in one line each, before work starts, what is missing or will be slow, and what to do."""

import ctypes.util
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent


class Finding(NamedTuple):
    """One line; ``fatal`` if no work can start."""

    fatal: bool
    line: str


def findings(root: Path) -> list[Finding]:
    """Return what is missing (fatal) or will be slow, in the order in which to mend it."""
    checks = (_environment(root), _repository(root), _settings(root), _compiler(), _renderer())
    return [finding for finding in checks if finding is not None]


def _environment(root: Path) -> Finding | None:
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("dvc") is None:
        return Finding(
            True, f"{sys.executable} lacks the project's packages; run `make setup` and use .venv/bin/python"
        )
    if not Path(sys.prefix).resolve().is_relative_to(root / ".venv"):
        return Finding(
            False, f"running in {sys.prefix}, not in the project's .venv; versions may differ from the pinned"
        )
    return None


def _repository(root: Path) -> Finding | None:
    if shutil.which("git") is None:
        return Finding(True, "git is not installed, which DVC needs (Debian and Ubuntu: apt-get install git)")
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, check=False)
    if git.returncode != 0:
        return Finding(
            True,
            "this folder is no git repository with a commit, which DVC needs; clone the project, or run "
            "`git init && git add -A && git commit -m start`",
        )
    return None


def _settings(root: Path) -> Finding | None:
    from metalib.config import ConfigError, load_machine, load_params  # noqa: PLC0415 (needs the environment)
    from stages.running import StageError, choose_device  # noqa: PLC0415

    try:
        load_params(root / "params.yaml")
        choose_device(load_machine(root / "machine.yaml"))
    except (ConfigError, StageError) as error:
        return Finding(True, str(error))
    return None


def _compiler() -> Finding | None:
    from metalib.compilation.native import compiler  # noqa: PLC0415 (needs the environment)

    if compiler() is None:
        return Finding(
            False,
            "no C++ compiler (g++, clang++ or $CXX) found: training runs uncompiled, many times slower"
            " (Debian and Ubuntu: apt-get install g++)",
        )
    return None


def _renderer() -> Finding | None:
    headless = any(ctypes.util.find_library(name) for name in ("EGL", "OSMesa"))
    if sys.platform == "linux" and not headless:
        return Finding(
            False,
            "no EGL or OSMesa library found: videos of robots cannot be drawn, everything else works "
            "(Debian and Ubuntu: apt-get install libegl1)",
        )
    return None


def main() -> int:
    """Print the findings; return 1 if one is fatal."""
    found = findings(ROOT)
    for finding in found:
        print(f"{'error' if finding.fatal else 'note'}: {finding.line}", file=sys.stderr)
    return int(any(finding.fatal for finding in found))


if __name__ == "__main__":
    sys.exit(main())
