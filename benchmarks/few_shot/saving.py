"""What saving training state costs: the time of one saving, as a share of the training between two."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from benchmarks.command import Say
from benchmarks.few_shot.problem import LSTM_ON_IMAGES, Problem, start
from benchmarks.machine import cores
from benchmarks.processes import measure
from benchmarks.summaries import summarise
from metalib.config import MachineSettings
from metalib.meta_training.checkpoints import Checkpoints, Progress

EVERY_SECONDS = MachineSettings().checkpoint_seconds


@dataclass(frozen=True)
class SavedRun:
    """A training run of the default scale near its end: ``seeds`` in one program, ``points`` of its curve."""

    label: str
    problem: Problem
    seeds: int
    points: int


RUNS = {
    "sinusoid_maml": SavedRun(
        "MAML on sinusoids, five seeds",
        Problem("mlp", "maml", tasks=25, shots=10, queries=10, inner_steps=1, width=40),
        seeds=5,
        points=700,
    ),
    "images_lstm": SavedRun("LSTM meta-learner on images, conv4, one seed", LSTM_ON_IMAGES, seeds=1, points=100),
}


class NotRestoredError(RuntimeError):
    """Saved state did not come back as it was."""


def measure_saving(folder: Path, quick: bool, say: Say) -> dict[str, Any]:
    """Measure the savings of each run in turn, for several rounds; return what the page reads as ``saving``.

    Args:
        folder: where state is saved; on the disk where training saves its own, for saving waits for the disk.
        quick: take fewer rounds and samples.
        say: called with a line for each run.
    """
    rounds, repeats = (1, 5) if quick else (3, 20)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in RUNS}
    for _ in range(rounds):
        for name, processes in found.items():
            arguments = {"name": name, "repeats": repeats, "folder": str(folder)}
            processes.append(measure("benchmarks.few_shot.saving:save", arguments, cores()[-1:], folder))
    rows = {name: _summarise(processes) for name, processes in found.items()}
    for name, row in rows.items():
        say(f"saving the state of {RUNS[name].label}: {row['ms_median']:.2f} ms")
    return {"every_seconds": EVERY_SECONDS, "runs": rows}


def _summarise(processes: list[dict[str, Any]]) -> dict[str, Any]:
    samples = [sample for each in processes for sample in each["samples_ms"]]
    figures = {**summarise(samples, "ms"), "ms_max": max(samples)}
    shares = {f"share_{kind}": figures[f"ms_{kind}"] / (1e3 * EVERY_SECONDS) for kind in ("median", "max")}
    return {"kib": processes[0]["kib"], **figures, **shares}


def save(name: str, threads: int, repeats: int, folder: str) -> dict[str, Any]:
    """Save a run's state ``repeats`` times, each over the last, and restore it.

    Returns:
        samples_ms, of one saving each, and the file's size in kib.

    Raises:
        NotRestoredError: what is restored is not what was saved.
    """
    torch.set_num_threads(threads)
    run, path = RUNS[name], Path(folder) / f"{name}.safetensors"
    state = start(run.problem, run.seeds)
    progress = Progress(100 * run.points, state, {100 * point: 1 / point for point in range(1, run.points + 1)})
    checkpoints = Checkpoints(path, "benchmark", every_seconds=0)
    checkpoints.keep(progress)  # the first also makes folders
    samples = []
    for _ in range(repeats):
        began = time.perf_counter()
        checkpoints.keep(progress)
        samples.append(1e3 * (time.perf_counter() - began))
    _check(checkpoints.restore(start(run.problem, run.seeds)), progress)
    return {"samples_ms": samples, "kib": path.stat().st_size / 2**10}


def _check(restored: Progress, saved: Progress) -> None:
    leaves = zip(tree_leaves(restored.state), tree_leaves(saved.state), strict=True)
    same = all(torch.equal(a, b) for a, b in leaves)
    if not same or (restored.steps, restored.curve) != (saved.steps, saved.curve):
        raise NotRestoredError("what was restored is not what was saved")
