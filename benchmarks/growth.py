"""Part B: how time and memory of metalib's meta-step grow with tasks, examples, inner steps and width."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.command import Say
from benchmarks.contenders.catalogue import CONTENDERS
from benchmarks.floor import count
from benchmarks.machine import cores
from benchmarks.preparation import describe, prepare_all
from benchmarks.problem import Problem
from benchmarks.processes import measure
from benchmarks.summaries import summarise

AXES = {
    "tasks": (1, 10, 25, 100, 1000),
    "shots": (5, 10, 20, 50, 100),
    "inner_steps": (1, 2, 5, 10),
    "width": (40, 80, 160, 320, 640),
}
QUICK_AXES = {"tasks": (1, 25, 100), "shots": (10, 20), "inner_steps": (1, 2), "width": (40, 80)}
PROGRAMS = ("metalib_fused", "metalib_compiled", "metalib_eager")
REPEATS = 3


def problem_at(axis: str, value: int) -> Problem:
    """Return the paper's problem with one size changed; ``shots`` is both support and query examples."""
    if axis == "shots":
        return replace(Problem(), support=value, query=value)
    return replace(Problem(), **{axis: value})


def steps_a_call(problem: Problem) -> int:
    """Return how many meta-steps to time at once; fewer where one takes long."""
    return 50 if count(problem).operations < 5e7 else 10


def grow(programs: Sequence[str], folder: Path, rate: float, quick: bool, say: Say) -> list[dict[str, Any]]:
    """Measure every point of every axis on one thread; return what :mod:`benchmarks.render` reads as ``growth``.

    Args:
        programs: which of PROGRAMS.
        folder: where programs are compiled to.
        rate: of multiply-adds on one thread, in operations a second, for the floor.
        quick: take fewer points.
        say: called with a line for each measurement.
    """
    points = [(axis, value) for axis, values in (QUICK_AXES if quick else AXES).items() for value in values]
    problems = list(dict.fromkeys(problem_at(*point) for point in points))
    # A folder each, for one may fall back to what another compiles.
    found = {name: _measure(name, problems, folder / name, say) for name in programs}
    return [
        {
            "axis": axis,
            "value": value,
            "operations_per_meta_step": count(problem_at(axis, value)).operations,
            "floor_ms": 1e3 * count(problem_at(axis, value)).operations / rate,
            "programs": {name: found[name][problem_at(axis, value)] for name in programs},
        }
        for axis, value in points
    ]


def _measure(name: str, problems: Sequence[Problem], folder: Path, say: Say) -> dict[Problem, dict[str, Any]]:
    """Prepare in one process and time in another, whose peak memory then is that of training alone."""
    seconds: list[float] | list[None] = [None] * len(problems)
    if CONTENDERS[name].compiles:
        seconds = prepare_all(name, problems, folder, say)
    results = {}
    for problem, prepared in zip(problems, seconds, strict=True):
        order = {"name": name, "problem": asdict(problem), "folder": str(folder), "repeats": REPEATS}
        arguments = {**order, "steps": steps_a_call(problem)}
        found = measure("benchmarks.measure:contender", arguments, cores()[-1:], folder)
        copied = ("peak_resident_mib", "resident_before_mib", "largest_deviation")
        results[problem] = {
            **summarise(found["samples_ms"], "ms"),
            "prepare_first_s": prepared,
            "prepare_later_s": found["prepare_s"],
            **{key: found[key] for key in copied},
        }
        median = results[problem]["ms_median"]
        say(f"{CONTENDERS[name].label}: {median:.3f} ms a meta-step, at {describe(problem)}")
    return results
