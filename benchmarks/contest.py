"""Part A: one meta-step of the paper's size, by every contender, on one thread and on all."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.command import Say
from benchmarks.contenders.catalogue import CONTENDERS, REFERENCE
from benchmarks.floor import count
from benchmarks.machine import cores
from benchmarks.problem import Problem
from benchmarks.processes import measure
from benchmarks.summaries import ratio, summarise_processes


def contest(names: Sequence[str], folder: Path, quick: bool, say: Say) -> dict[str, Any]:
    """Measure the contenders and the floor; return what :mod:`benchmarks.render` reads as ``meta_step``.

    Contenders take turns, for several rounds, so that a machine that slows down slows all of them.
    """
    problem = Problem()
    settings = {"one_thread": cores()[-1:], "all_threads": cores()}
    if len(cores()) == 1:
        del settings["all_threads"]
    rounds, repeats = (1, 3) if quick else (3, 5)
    result: dict[str, Any] = {"problem": asdict(problem)}
    for setting, on in settings.items():
        rates: list[float] = []
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        for number in range(1, rounds + 1):
            place = f"{setting.replace('_', ' ')}, round {number} of {rounds}"
            rates.append(measure("benchmarks.floor:measure_rate", {"folder": str(folder)}, on, folder))
            say(f"{place}: arithmetic at {rates[-1] / 1e9:.1f} Gflop/s")
            for name in names:
                arguments = {"name": name, "problem": asdict(problem), "repeats": repeats, "folder": str(folder)}
                found[name].append(measure("benchmarks.measure:contender", arguments, on, folder))
                say(f"{place}: {CONTENDERS[name].label}: {_told(found[name][-1])}")
        result[setting] = compare(problem, len(on), max(rates), found)
    return result


def _told(found: dict[str, Any]) -> str:
    median = statistics.median(found["samples_ms"])
    return f"{median:.3f} ms a meta-step (prepared in {found['prepare_s']:.1f} s)"


def compare(problem: Problem, threads: int, rate: float, found: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return the floor at a rate, and every contender beside it and beside REFERENCE."""
    counts = count(problem)
    floor_ms = 1e3 * counts.operations / rate
    rows = {name: summarise_processes(processes) for name, processes in found.items()}
    reference = rows.get(REFERENCE, {})
    for row in rows.values():
        for kind in ("median", "min"):
            row[f"times_{REFERENCE}_{kind}"] = ratio(row[f"ms_{kind}"], reference.get(f"ms_{kind}"))
            row[f"times_floor_{kind}"] = row[f"ms_{kind}"] / floor_ms
    floor = {
        "ms": floor_ms,
        "operations_per_second": rate,
        "operations_per_meta_step": counts.operations,
        "multiply_adds": counts._asdict(),
    }
    return {"threads": threads, "floor": floor, "contenders": rows}
