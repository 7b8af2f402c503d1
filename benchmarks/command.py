"""How measuring and rendering commands end: what they found is written, or one line says why not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import typer

from benchmarks.processes import MeasurementError
from benchmarks.summaries import rounded
from metalib.reporting.page import markdown_table
from metalib.storage import StorageError, read_json, write_json, write_text

Say = Callable[[str], None]
"""Told in a line what was measured."""


def write_figures(output: Path, run: Callable[[], Any]) -> None:
    """Write what ``run`` measures to ``output``; a measurement that fails ends the command in one line, exit code 1."""
    try:
        write_json(output, rounded(run()))
    except (MeasurementError, StorageError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    typer.echo(f"written: {output}")


def read_figures(source: Path, schema: str) -> dict[str, Any]:
    """Return the figures that a benchmark wrote.

    Raises:
        StorageError: the file is missing, is not JSON, or holds another benchmark's figures.
    """
    results = read_json(source)
    if not isinstance(results, dict) or results.get("schema") != schema:
        raise StorageError(f"{source} is not a {schema}; run the benchmark that writes it (make bench)")
    return results


def machine_table(results: dict[str, Any]) -> str:
    """Return the section of a page on what the figures were measured with."""
    facts = {**results["machine"], **results["versions"]}
    rows = [{"": name.replace("_", " "), "here": str(value)} for name, value in facts.items() if value is not None]
    return "## Machine and versions\n\n" + markdown_table(pd.DataFrame(rows))


def write_page(markdown: Path, source: Path, schema: str, page: Callable[[dict[str, Any]], str]) -> None:
    """Write ``page`` of the figures in ``source``; what cannot be read or written ends the command in one line."""
    try:
        write_text(markdown, page(read_figures(source, schema)))
    except StorageError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    typer.echo(f"written: {markdown}")
