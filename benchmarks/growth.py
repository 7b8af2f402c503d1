"""Part B: how time and memory of metalib's meta-step grow with tasks, examples, inner steps and width."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.contenders.catalogue import CONTENDERS
from benchmarks.floor import count
from benchmarks.machine import cores
from benchmarks.problem import Problem
from benchmarks.processes import measure
from benchmarks.summaries import summarise

Say = Callable[[str], None]

AXES = {
    "tasks": (1, 10, 25, 100, 1000),
    "shots": (5, 10, 20, 50, 100),
    "inner_steps": (1, 2, 5, 10),
    "width": (40, 80, 160, 320, 640),
}
QUICK_AXES = {"tasks": (1, 25, 100), "shots": (10, 20), "inner_steps": (1, 2), "width": (40, 80)}
PROGRAMS = ("metalib_compiled", "metalib_eager")
STEPS = 20
REPEATS = 3


def problem_at(axis: str, value: int) -> Problem:
    """Return the paper's problem with one size changed; ``shots`` is both support and query examples."""
    if axis == "shots":
        return replace(Problem(), support=value, query=value)
    return replace(Problem(), **{axis: value})


def grow(programs: Sequence[str], folder: Path, rate: float, quick: bool, say: Say) -> list[dict[str, Any]]:
    """Measure every point of every axis on one thread; return what :mod:`benchmarks.render` reads as ``growth``.

    Args:
        programs: which of PROGRAMS.
        folder: where programs are compiled to.
        rate: of matrix products on one thread, in operations a second, for the floor.
        quick: take fewer points.
        say: called with a line for each measurement.
    """
    done: dict[tuple[Problem, str], dict[str, Any]] = {}
    rows = []
    for axis, values in (QUICK_AXES if quick else AXES).items():
        for value in values:
            problem = problem_at(axis, value)
            for name in programs:
                if (problem, name) not in done:
                    done[problem, name] = _measure(name, problem, folder)
                    say(
                        f"{axis} {value}: {CONTENDERS[name].label}: {done[problem, name]['ms_median']:.3f} ms a meta-step"
                    )
            operations = count(problem).operations
            rows.append(
                {
                    "axis": axis,
                    "value": value,
                    "operations_per_meta_step": operations,
                    "floor_ms": 1e3 * operations / rate,
                    "programs": {name: done[problem, name] for name in programs},
                }
            )
    return rows


def _measure(name: str, problem: Problem, folder: Path) -> dict[str, Any]:
    """Prepare in one process and time in another, whose peak memory then is that of training alone."""
    arguments = {"name": name, "problem": asdict(problem), "folder": str(folder), "steps": STEPS}
    on = cores()[-1:]
    prepared = measure("benchmarks.measure:contender", {**arguments, "repeats": 0}, on, folder)
    found = measure("benchmarks.measure:contender", {**arguments, "repeats": REPEATS}, on, folder)
    return {
        **summarise(found["samples_ms"], "ms"),
        "prepare_first_s": prepared["prepare_s"],
        "prepare_later_s": found["prepare_s"],
        "peak_resident_mib": found["peak_resident_mib"],
        "resident_before_mib": found["resident_before_mib"],
        "largest_deviation": found["largest_deviation"],
    }
