"""Run stages with settings of their own, beside the project's."""

import json
import subprocess
import sys
from pathlib import Path

import typer

from tools.environment import with_this_python

ROOT = Path(__file__).resolve().parent.parent


def run_stage(stage: str, arguments: list[str], params: Path) -> None:
    """Run a stage with the settings in ``params``.

    Raises:
        typer.Exit: the stage failed; its exit code.
    """
    command = [sys.executable, "-m", f"stages.{stage}", *arguments, "--params", str(params)]
    if code := subprocess.run(command, cwd=ROOT, env=with_this_python(), check=False).returncode:
        raise typer.Exit(code)


def logged_seconds(log: str) -> float:
    """Return how long the last stage took that is named ``log`` in its log."""
    return float(json.loads((ROOT / "logs" / "stages" / f"{log}.json").read_text())["seconds"])


def from_root(path: Path) -> Path:
    """Return ``path`` as seen from the project's root, where the command is given, if it lies within."""
    whole = path.resolve()
    return whole.relative_to(ROOT) if whole.is_relative_to(ROOT) else path
