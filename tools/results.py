"""Folders of results: written aside, then put in place whole; nothing that is no such result is replaced."""

import shutil
from pathlib import Path

import typer

RUN = "run.json"
"""Stands in every folder of results: what was run, and on which machine."""


def refuse_other_folder(target: Path) -> None:
    """Refuse a ``target`` that exists and holds no results of an earlier run; to be called before any work.

    Raises:
        typer.BadParameter: says so.
    """
    if target.exists() and not (target / RUN).is_file():
        raise typer.BadParameter(f"{target} exists and holds no {RUN} of an earlier run; name another folder")


def put_in_place(results: Path, target: Path) -> None:
    """Move the folder ``results`` to ``target``, in place of those of an earlier run."""
    refuse_other_folder(target)
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(results, target)
