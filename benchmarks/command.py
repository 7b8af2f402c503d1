"""How every measuring command ends: figures written as JSON, or one line that says why not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from benchmarks.processes import MeasurementError
from benchmarks.summaries import rounded
from metalib.storage import StorageError, write_json


def write_figures(output: Path, run: Callable[[], Any]) -> None:
    """Write what ``run`` measures to ``output``; a measurement that fails ends the command in one line, exit code 1."""
    try:
        write_json(output, rounded(run()))
    except (MeasurementError, StorageError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    typer.echo(f"written: {output}")
