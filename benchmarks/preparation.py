"""Compile many programs before any of them is timed, as many side by side as there are processors."""

import queue
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.command import Say
from benchmarks.contenders.catalogue import CONTENDERS
from benchmarks.machine import cores
from benchmarks.problem import Problem
from benchmarks.processes import measure


def prepare_all(name: str, problems: Sequence[Problem], folder: Path, say: Say) -> list[float]:
    """Prepare a contender for each problem, in processes of one thread; return the seconds each took.

    Programs are kept in ``folder``, so that later processes only load them.
    """
    free: queue.SimpleQueue[int] = queue.SimpleQueue()
    for core in cores():
        free.put(core)

    def prepare(problem: Problem) -> float:
        core = free.get()
        try:
            arguments: dict[str, Any] = {"name": name, "problem": asdict(problem), "repeats": 0, "folder": str(folder)}
            seconds: float = measure("benchmarks.measure:contender", arguments, [core], folder)["prepare_s"]
        finally:
            free.put(core)
        say(f"prepared {CONTENDERS[name].label} in {seconds:.0f} s for {describe(problem)}")
        return seconds

    with ThreadPoolExecutor(len(cores())) as pool:
        return list(pool.map(prepare, problems))


def describe(problem: Problem) -> str:
    """Return what of the problem differs from the paper's, in words."""
    changed = [f"{name} {value}" for name, value in asdict(problem).items() if value != getattr(Problem(), name)]
    return ", ".join(changed) or "the paper's sizes"
