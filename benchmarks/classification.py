"""Measure few-shot meta-steps: conv4 under MAML, the LSTM rule, and what saving training state costs."""

import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.command import write_figures
from benchmarks.few_shot.contenders import CONTENDERS
from benchmarks.few_shot.measure import STEPS, TOLERANCE
from benchmarks.few_shot.race import race_convolutions, race_lstm
from benchmarks.few_shot.saving import RUNS, measure_saving
from benchmarks.machine import facts, versions
from benchmarks.processes import ROOT
from metalib.compilation import can_compile

RESULT = Path("benchmarks/results/classification.json")
SCHEMA = "few-shot benchmark 1"
CACHE = ROOT / ".cache"


def run(quick: bool) -> dict[str, Any]:
    """Make all measurements; return what :mod:`benchmarks.few_shot.sections` reads."""
    CACHE.mkdir(exist_ok=True)
    # State is saved where training saves its own, in the project's cache: disks differ.
    with (
        tempfile.TemporaryDirectory(prefix="metalib-bench-") as made,
        tempfile.TemporaryDirectory(prefix="bench-", dir=CACHE) as saved,
    ):
        folder = Path(made)
        compiles = can_compile(folder / "probe")
        if not compiles:
            left_out = [contender.label for contender in CONTENDERS.values() if contender.needs_compiler]
            typer.echo(f"skipped, for there is no C++ compiler that works with PyTorch: {'; '.join(left_out)}")
        return {
            "schema": SCHEMA,
            "quick": quick,
            "machine": facts(),
            "versions": versions(),
            "labels": {name: contender.label for name, contender in CONTENDERS.items()},
            "run_labels": {name: saved_run.label for name, saved_run in RUNS.items()},
            "check": {"steps": STEPS, "tolerance": TOLERANCE},
            "convolutions": race_convolutions(compiles, folder, quick, typer.echo),
            "lstm": race_lstm(compiles, folder, quick, typer.echo),
            "saving": measure_saving(Path(saved), quick, typer.echo),
        }


def main(
    output: Annotated[Path, typer.Option(help="The JSON file to write.")] = RESULT,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer rounds and sizes.")] = False,
) -> None:
    """Measure conv4's meta-step beside PyTorch's own layers, the LSTM rule's, and saving; write the figures as JSON.

    Every contender runs in a process of its own, and its meta-gradient is checked against a float64 reference before it
    is timed. Use the machine for nothing else meanwhile.
    """
    write_figures(output, lambda: run(quick))


if __name__ == "__main__":
    typer.run(main)
