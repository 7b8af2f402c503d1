"""Measurements, each made in a process of its own; see :mod:`benchmarks.processes`."""

import importlib
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.by_hand import train
from benchmarks.contenders.catalogue import CONTENDERS, Run
from benchmarks.machine import peak_resident_mib
from benchmarks.problem import Problem, draw_episodes, initial_theta
from benchmarks.processes import wait_for_the_others

CHECKED_STEPS = 5
TOLERANCE = 1e-5
"""Largest deviation of a parameter from the float64 reference after the checked steps, each moving it by 0.001."""
LEAST_SECONDS = 0.25
MOST_SECONDS = 30.0


class DisagreementError(RuntimeError):
    """A contender computes something else than the reference."""


def contender(
    name: str,
    problem: dict[str, Any],
    threads: int,
    repeats: int,
    folder: str,
    steps: int | None = None,
    side_by_side: bool = False,
) -> dict[str, Any]:
    """Prepare a contender, time it, and check its parameters against the reference.

    Args:
        name: of :data:`CONTENDERS`.
        problem: the fields of :class:`Problem`.
        threads: that PyTorch may use.
        repeats: timed samples; with 0 it is prepared only.
        folder: where programs are compiled to.
        steps: meta-steps a call; the contender's own number if None.
        side_by_side: say that all is ready and wait for a line before timing.

    Returns:
        prepare_s, samples_ms (a meta-step), the resident memory before preparation and its peak after the timing, and
        the largest_deviation from the reference.

    Raises:
        DisagreementError: the deviation is above TOLERANCE.
    """
    torch.set_num_threads(threads)
    sizes = Problem(**problem)
    theta, episodes = initial_theta(sizes), draw_episodes(sizes, steps or CONTENDERS[name].steps)
    module = importlib.import_module(f"benchmarks.contenders.{name}")
    resident_before = peak_resident_mib()
    began = time.perf_counter()
    run: Run = module.prepare(sizes, theta, episodes, Path(folder))
    prepare_s = time.perf_counter() - began
    if not repeats:
        return {"prepare_s": prepare_s}
    if side_by_side:
        wait_for_the_others()
    samples = time_calls(lambda: run(theta, episodes), repeats)
    result = {
        "prepare_s": prepare_s,
        "samples_ms": [1e3 * sample / len(episodes.support.x) for sample in samples],
        "resident_before_mib": resident_before,
        "peak_resident_mib": peak_resident_mib(),
    }
    return {**result, "largest_deviation": _deviation(name, run, sizes)}


def time_calls(call: Callable[[], object], repeats: int) -> list[float]:
    """Return seconds a call: samples of as many calls as last LEAST_SECONDS together, after two to warm up.

    There are ``repeats`` samples, or fewer, but at least one, once they took MOST_SECONDS.
    """
    call()
    began = time.perf_counter()
    call()
    calls = max(1, math.ceil(LEAST_SECONDS / (time.perf_counter() - began)))
    samples: list[float] = []
    while len(samples) < repeats and sum(samples) * calls < MOST_SECONDS:
        began = time.perf_counter()
        for _ in range(calls):
            call()
        samples.append((time.perf_counter() - began) / calls)
    return samples


def _deviation(name: str, run: Run, problem: Problem) -> float:
    """Return the largest deviation of a parameter from the reference; raise if it is above TOLERANCE."""
    theta, episodes = initial_theta(problem), draw_episodes(problem, CHECKED_STEPS)
    found = run(theta, episodes).double().numpy()
    expected = [
        train(start.double().numpy(), [_arrays(episodes, step, seed) for step in range(CHECKED_STEPS)], problem)
        for seed, start in enumerate(theta)
    ]
    deviation = float(np.abs(found - np.stack(expected)).max())
    if not deviation <= TOLERANCE:
        raise DisagreementError(
            f"{name} disagrees with the float64 reference: a parameter is off by {deviation:.2g} after "
            f"{CHECKED_STEPS} meta-steps, more than {TOLERANCE:.0e} ({problem})"
        )
    return deviation


def _arrays(episodes: Any, step: int, seed: int) -> Any:
    return tuple(part[step, seed].double().numpy() for batch in episodes for part in batch)
