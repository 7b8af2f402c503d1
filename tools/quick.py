"""Run the whole pipeline at quick scale in a temporary clone, and say where its report is."""

import os
import re
import sys
import tempfile
from pathlib import Path

from metalib.threads import available_threads
from tools.clone import clone_work_tree
from tools.parallel import reproduce_side_by_side

ROOT = Path(__file__).resolve().parent.parent


def set_scale(params: Path, scale: str) -> None:
    """Change the ``scale`` of a settings file, and nothing else of it.

    Raises:
        ValueError: the file has no line ``scale: ...``.
    """
    text, changed = re.subn(r"(?m)^scale:\s*\w+", f"scale: {scale}", params.read_text(), count=1)
    if not changed:
        raise ValueError(f"{params} has no line 'scale: ...'")
    params.write_text(text)


def reproduce_quickly(clone: Path, slots: int | None = None) -> int:
    """Reproduce the pipeline at quick scale in ``clone``, with this Python; return an exit code.

    ``slots`` stages run at a time; as many as there are processors if None.
    """
    set_scale(clone / "params.yaml", "quick")
    # DVC writes the whole lock file again after every stage: one without the stages of another scale is written faster.
    (clone / "dvc.lock").unlink(missing_ok=True)
    # To start a second process takes longer than the work of most stages here: stages run side by side instead.
    environment = {"METALIB_WORKERS": os.environ.get("METALIB_WORKERS", "1")}
    return reproduce_side_by_side(clone, slots or available_threads(), environment)


def main() -> int:
    """Make the clone, run, and print where the report is."""
    clone = Path(tempfile.mkdtemp(prefix="metalib-quick-"))
    clone_work_tree(ROOT, clone)
    code = reproduce_quickly(clone)
    if code == 0:
        print(f"quick run done in {clone} (delete it when you have read the report)")
        print(f"report: {clone / 'reports' / 'index.html'}")
    return code


if __name__ == "__main__":
    sys.exit(main())
