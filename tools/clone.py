"""A temporary copy of the project as it stands in the work tree, committed, ready for DVC."""

import shutil
import subprocess
from pathlib import Path


def clone_work_tree(root: Path, target: Path) -> None:
    """Copy what git tracks in ``root``, and what it neither tracks nor ignores, to ``target`` and commit it there.

    Uncommitted edits come along; caches, results outside git and the environment do not. A ``target`` that holds an
    earlier copy keeps what git ignores in it, so that what was computed there is not computed again.

    Raises:
        subprocess.CalledProcessError: ``root`` is no git repository.
    """
    if (target / ".git").is_dir():
        for name in _files(target):
            (target / name).unlink(missing_ok=True)
    for name in _files(root):
        source = root / name
        if source.is_file():  # a deleted file is still listed
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name)
    identity = ["-c", "user.name=metalib", "-c", "user.email=metalib@localhost", "-c", "commit.gpgsign=false"]
    for command in (
        ["init", "--quiet"],
        ["add", "--all"],
        [*identity, "commit", "--quiet", "--allow-empty", "-m", "work tree"],
    ):
        subprocess.run(["git", *command], cwd=target, check=True)


def _files(root: Path) -> list[str]:
    """Return what git tracks in ``root``, and what it neither tracks nor ignores."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        check=True,
    )
    return list(filter(None, listing.stdout.decode().split("\0")))
