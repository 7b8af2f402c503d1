"""Measure the meta-step: beside other implementations, as it grows, and with seeds batched."""

import importlib.util
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.command import write_figures
from benchmarks.contenders.catalogue import CONTENDERS
from benchmarks.contest import contest
from benchmarks.growth import PROGRAMS, grow
from benchmarks.machine import facts, versions
from benchmarks.measure import CHECKED_STEPS, TOLERANCE
from benchmarks.seeds import PROGRAM, compare_seeds
from metalib.compilation import can_compile

RESULT = Path("benchmarks/results/meta_step.json")
SCHEMA = "meta-step benchmark 2"


def missing_packages() -> list[str]:
    """Return what contenders need and this environment lacks."""
    needed = {package for contender in CONTENDERS.values() for package in contender.packages}
    return sorted(package for package in needed if importlib.util.find_spec(package) is None)


def run(quick: bool) -> dict[str, Any]:
    """Make all measurements; return what :mod:`benchmarks.render` reads."""
    with tempfile.TemporaryDirectory(prefix="metalib-bench-") as made:
        folder = Path(made)
        compiles = can_compile(folder / "probe")
        names = [name for name, contender in CONTENDERS.items() if compiles or not contender.needs_cxx]
        for name in CONTENDERS.keys() - names:
            typer.echo(f"skipped: {CONTENDERS[name].label}, for there is no C++ compiler that works with PyTorch")
        meta_step = contest(names, folder / "contest", quick, typer.echo)
        rate = meta_step["one_thread"]["floor"]["operations_per_second"]
        programs = [name for name in PROGRAMS if name in names]
        return {
            "schema": SCHEMA,
            "quick": quick,
            "machine": facts(),
            "versions": versions(),
            "labels": {name: CONTENDERS[name].label for name in names},
            "check": {"steps": CHECKED_STEPS, "tolerance": TOLERANCE},
            "meta_step": meta_step,
            "growth": grow(programs, folder / "growth", rate, quick, typer.echo),
            "seeds": compare_seeds(folder / "growth" / PROGRAM, quick, typer.echo) if PROGRAM in names else [],
        }


def main(
    output: Annotated[Path, typer.Option(help="The JSON file to write.")] = RESULT,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer rounds and sizes.")] = False,
) -> None:
    """Measure one meta-step against other implementations, its growth, and batched seeds; write the figures as JSON.

    Every contender runs in a process of its own, and its parameters are checked against a float64 reference. Use the
    machine for nothing else meanwhile.
    """
    if missing := missing_packages():
        fix = "run `make bench`, or pip install -r benchmarks/requirements-bench.txt"
        typer.echo(f"error: not installed: {', '.join(missing)}; {fix}", err=True)
        raise typer.Exit(1)
    write_figures(output, lambda: run(quick))


if __name__ == "__main__":
    typer.run(main)
