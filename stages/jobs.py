"""Independent jobs of a stage, side by side in processes of one thread each.

What a job computes depends on its arguments alone, never on how many run at once.
"""

import multiprocessing
import os
import queue
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import torch

from metalib.config import MachineSettings
from stages.progress import Bars

Advance = Callable[[int], None]
"""Called by a job with the units it has done so far."""


@dataclass(frozen=True)
class Job:
    """``function(*arguments, advance)``, a module-level function; ``total`` units of work."""

    name: str
    total: int
    function: Callable[..., Any]
    arguments: tuple[Any, ...]


def worker_count(machine: MachineSettings, n_jobs: int) -> int:
    """Return how many processes to use: what the machine settings say, at most one a job."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(n_jobs, available if machine.workers == "auto" else machine.workers)


def run_jobs(jobs: list[Job], workers: int, unit: str) -> list[Any]:
    """Run the jobs, ``workers`` at once, under progress bars; return their results in the order of ``jobs``.

    The first exception of a job cancels those not yet started and is raised here.
    """
    with Bars(unit) as bars:
        for job in jobs:
            bars.add(job.name, job.total)
        if workers == 1:
            torch.set_num_threads(1)
            return [job.function(*job.arguments, lambda done, n=job.name: bars.advance(n, done)) for job in jobs]
        return _run_in_processes(jobs, workers, bars)


def _run_in_processes(jobs: list[Job], workers: int, bars: Bars) -> list[Any]:
    context = multiprocessing.get_context("spawn")
    messages: multiprocessing.Queue[tuple[str, int]] = context.Queue()
    with ProcessPoolExecutor(workers, context, _start_worker, (messages,)) as pool:
        futures = [pool.submit(_run_in_worker, job) for job in jobs]
        pending: set[Future[Any]] = set(futures)
        try:
            while pending:
                finished, pending = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
                _show(messages, bars)
                for future in finished:
                    future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()
            raise
    _show(messages, bars)
    return [future.result() for future in futures]


def _show(messages: "multiprocessing.Queue[tuple[str, int]]", bars: Bars) -> None:
    while True:
        try:
            name, done = messages.get_nowait()
        except queue.Empty:
            return
        bars.advance(name, done)


_messages: "multiprocessing.Queue[tuple[str, int]] | None" = None


def _start_worker(messages: "multiprocessing.Queue[tuple[str, int]]") -> None:
    global _messages  # noqa: PLW0603 (a process pool has no other place for its queue)
    _messages = messages
    torch.set_num_threads(1)


def _run_in_worker(job: Job) -> Any:
    messages = _messages
    assert messages is not None
    return job.function(*job.arguments, lambda done: messages.put((job.name, done)))
