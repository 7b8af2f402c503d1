"""Part C: several seeds batched in one program, against one seed a program; two processes side by side."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.command import Say
from benchmarks.preparation import prepare_all
from benchmarks.problem import Problem
from benchmarks.processes import measure_side_by_side
from benchmarks.summaries import summarise

SHOTS = (5, 10, 20)
BATCHED_SEEDS = 5
PROGRAM = "metalib_compiled"
"""The kernel takes seeds one after the other, so batching them is nothing to it."""
PROCESSES = 2


def compare_seeds(folder: Path, quick: bool, say: Say) -> list[dict[str, Any]]:
    """Measure both ways at each K; return what :mod:`benchmarks.render` reads as ``seeds``.

    A seed-step is one meta-step of one seed. Its time is that of a process: two processes do two at a time.
    """
    shots = (10,) if quick else SHOTS
    problems = [Problem(support=k, query=k, seeds=seeds) for k in shots for seeds in (1, BATCHED_SEEDS)]
    prepare_all(PROGRAM, problems, folder, say)
    rows = []
    for problem in problems:
        repeats = 3 if quick else 9
        arguments = {"name": PROGRAM, "problem": asdict(problem), "folder": str(folder), "repeats": repeats}
        found = measure_side_by_side("benchmarks.measure:contender", arguments, folder, PROCESSES)
        samples = [sample / problem.seeds for each in found for sample in each["samples_ms"]]
        sizes = {"shots": problem.support, "seeds": problem.seeds, "processes": PROCESSES}
        rows.append({**sizes, **summarise(samples, "ms_per_seed_step")})
        median = rows[-1]["ms_per_seed_step_median"]
        say(f"K = {problem.support}, seeds a program {problem.seeds}: {median:.3f} ms a seed-step")
    return rows
