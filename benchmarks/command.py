"""How measuring and rendering commands end: what they found is written, or one line says why not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from benchmarks.processes import MeasurementError
from benchmarks.summaries import rounded
from metalib.storage import StorageError, read_json, write_json, write_text


def write_figures(output: Path, run: Callable[[], Any]) -> None:
    """Write what ``run`` measures to ``output``; a measurement that fails ends the command in one line, exit code 1."""
    try:
        write_json(output, rounded(run()))
    except (MeasurementError, StorageError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    typer.echo(f"written: {output}")


def write_page(markdown: Path, source: Path, page: Callable[[dict[str, Any]], str]) -> None:
    """Write ``page`` of the figures in ``source``; what cannot be read or written ends the command in one line."""
    try:
        write_text(markdown, page(read_json(source)))
    except StorageError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    typer.echo(f"written: {markdown}")
