"""Part C: several seeds batched in one program, against one seed a program; two processes side by side."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.contenders.catalogue import REFERENCE
from benchmarks.machine import cores
from benchmarks.problem import Problem
from benchmarks.processes import measure, measure_side_by_side
from benchmarks.summaries import summarise

Say = Callable[[str], None]

SHOTS = (5, 10, 20)
BATCHED_SEEDS = 5
PROCESSES = 2


def compare_seeds(folder: Path, quick: bool, say: Say) -> list[dict[str, Any]]:
    """Measure both ways at each K; return what :mod:`benchmarks.render` reads as ``seeds``.

    A seed-step is one meta-step of one seed. Its time is that of a process: two processes do two at a time.
    """
    rows = []
    for shots in (10,) if quick else SHOTS:
        for seeds in (1, BATCHED_SEEDS):
            problem = Problem(support=shots, query=shots, seeds=seeds)
            arguments = {"name": REFERENCE, "problem": asdict(problem), "folder": str(folder)}
            function = "benchmarks.measure:contender"
            measure(function, {**arguments, "repeats": 0}, cores()[-1:], folder)
            repeats = 3 if quick else 9
            found = measure_side_by_side(function, {**arguments, "repeats": repeats}, folder, PROCESSES)
            samples = [sample / seeds for each in found for sample in each["samples_ms"]]
            row = {"shots": shots, "seeds": seeds, "processes": PROCESSES, **summarise(samples, "ms_per_seed_step")}
            rows.append(row)
            say(f"K = {shots}, {seeds} seeds a program: {row['ms_per_seed_step_median']:.3f} ms a seed-step")
    return rows
