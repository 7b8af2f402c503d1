"""Contenders in turn, for several rounds: the meta-step of conv4, and that of the LSTM rule."""

import statistics
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.command import Say
from benchmarks.few_shot.contenders import CONTENDERS, OF_METHOD
from benchmarks.few_shot.problem import CONVOLUTIONS, LSTM_ON_IMAGES, LSTM_ON_SINUSOIDS, MORE_SHOTS, Problem
from benchmarks.machine import cores
from benchmarks.processes import measure
from benchmarks.summaries import ratio, summarise_processes


def race_convolutions(can_compile: bool, folder: Path, quick: bool, say: Say) -> list[dict[str, Any]]:
    """Measure conv4 under MAML, on one thread and on all; return what the page reads as ``convolutions``."""
    settings = {"one_thread": cores()[-1:], "all_threads": cores()}
    if len(cores()) == 1:
        del settings["all_threads"]
    problems = (CONVOLUTIONS,) if quick else (CONVOLUTIONS, MORE_SHOTS)
    return [race(problem, settings, can_compile, folder, quick, say) for problem in problems]


def race_lstm(can_compile: bool, folder: Path, quick: bool, say: Say) -> list[dict[str, Any]]:
    """Measure the LSTM rule on one thread, as every training job runs; return what the page reads as ``lstm``."""
    settings = {"one_thread": cores()[-1:]}
    return [race(problem, settings, can_compile, folder, quick, say) for problem in (LSTM_ON_SINUSOIDS, LSTM_ON_IMAGES)]


def race(
    problem: Problem, settings: dict[str, list[int]], can_compile: bool, folder: Path, quick: bool, say: Say
) -> dict[str, Any]:
    """Measure all contenders of a problem under each setting, which names the processors to use."""
    rounds, repeats = (1, 2) if quick else (3, 5)
    names = [name for name in OF_METHOD[problem.method] if can_compile or not CONTENDERS[name].needs_compiler]
    result: dict[str, Any] = {"problem": asdict(problem), "coordinates": problem.coordinates}
    for setting, on in settings.items():
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        for number in range(1, rounds + 1):
            for name in names:
                arguments = {"name": name, "problem": asdict(problem), "repeats": repeats, "folder": str(folder)}
                found[name].append(measure("benchmarks.few_shot.measure:contender", arguments, on, folder))
                median = statistics.median(found[name][-1]["samples_ms"])
                place = f"{describe(problem)}, {setting.replace('_', ' ')}, round {number} of {rounds}"
                say(f"{place}: {CONTENDERS[name].label}: {median:.1f} ms a meta-step")
        result[setting] = {"threads": len(on), "contenders": compare(problem, found)}
    return result


def compare(problem: Problem, found: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return every contender's figures, and how many times as fast as the last of its method it is.

    Of the LSTM rule also microseconds a coordinate-step, see :attr:`Problem.coordinate_steps`.
    """
    rows = {name: summarise_processes(processes) for name, processes in found.items()}
    baseline = rows[OF_METHOD[problem.method][-1]]
    for row in rows.values():
        for kind in ("median", "min"):
            row[f"times_as_fast_{kind}"] = ratio(baseline[f"ms_{kind}"], row[f"ms_{kind}"])
            if problem.method == "lstm":
                row[f"us_per_coordinate_step_{kind}"] = 1e3 * row[f"ms_{kind}"] / problem.coordinate_steps
    return rows


def describe(problem: Problem) -> str:
    """Return the problem in a few words."""
    network = f"{problem.learner} of {problem.width}"
    shots = f"K = {problem.shots}" if problem.learner == "mlp" else f"{problem.ways}-way {problem.shots}-shot"
    return f"{problem.method.upper()}, {network}, {shots}"
