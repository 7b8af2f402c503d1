"""Independent jobs of a stage, side by side in processes of one thread each.

What a job computes depends on its arguments alone, never on how many run at once. A first interrupt (Ctrl-C, SIGTERM)
asks every job to save and stop; after :data:`GRACE_SECONDS` those that have not are ended.
"""

import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.context import SpawnContext
from typing import Any, Protocol

import torch

from metalib.config import MachineSettings
from metalib.errors import Interrupted, MetalibError
from stages.parent_death import die_with_parent
from stages.progress import Bars

GRACE_SECONDS = 1.0
"""How long a stage that is to end within two seconds waits for its jobs; to end takes a while itself."""


class Flag(Protocol):
    """What threading's and multiprocessing's events have in common here."""

    def is_set(self) -> bool:
        """Whether the flag is up."""

    def set(self) -> None:
        """Raise the flag."""


class _SharedFlag:
    """A flag of several processes, without the lock of multiprocessing's event.

    So a signal handler may raise it at any moment, and a process that is killed leaves it usable.
    """

    def __init__(self, context: SpawnContext) -> None:
        self._raised = context.RawValue("b", 0)

    def is_set(self) -> bool:
        return bool(self._raised.value)

    def set(self) -> None:
        self._raised.value = 1


@dataclass(frozen=True)
class Control:
    """What a running job tells the stage, and what the stage tells it.

    ``advance(done, detail)`` says how many units are done and, if it likes, in a few words how it goes.
    """

    advance: Callable[..., None]
    stop: Flag


@dataclass(frozen=True)
class Job:
    """``function(*arguments, control)``, a module-level function; ``total`` units of work."""

    name: str
    total: int
    function: Callable[..., Any]
    arguments: tuple[Any, ...]


def worker_count(machine: MachineSettings, n_jobs: int) -> int:
    """Return how many processes to use: what the machine settings say, at most one a job.

    Auto is one a processor; but less than two jobs a processor all run at once and share the processors' time, since a
    second round of few jobs would leave processors idle (three equal jobs on two: 1.5 times one job's time, not 2).
    """
    if machine.workers != "auto":
        return min(n_jobs, machine.workers)
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return n_jobs if n_jobs < 2 * available else available


def run_jobs(jobs: list[Job], workers: int, unit: str) -> list[Any]:
    """Run the jobs, ``workers`` at once and in their order, under progress bars; return their results in that order.

    Raises:
        Interrupted: the stage was asked to stop.
        Exception: the first exception of a job; jobs not yet started are cancelled.
    """
    with Bars(unit) as bars:
        for job in jobs:
            bars.add(job.name, job.total)
        run = _run_here if workers == 1 else _run_in_processes
        return run(jobs, workers, bars)


@contextmanager
def _interrupts_raise(flag: Flag) -> Iterator[None]:
    """Within the body, Ctrl-C and SIGTERM raise the flag instead of ending the process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, lambda *_: flag.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _run_here(jobs: list[Job], workers: int, bars: Bars) -> list[Any]:
    """Run the jobs in a thread of this process, so that an interrupt is heard even while one compiles."""
    torch.set_num_threads(1)
    stop = threading.Event()
    outcome: Future[list[Any]] = Future()

    def work() -> None:
        torch.set_num_threads(1)
        try:
            results = []
            for job in jobs:
                control = Control(partial(bars.advance, job.name), stop)
                results.append(job.function(*job.arguments, control))
            outcome.set_result(results)
        except BaseException as error:
            outcome.set_exception(error)

    with _interrupts_raise(stop):
        threading.Thread(target=work, daemon=True).start()
        deadline = None
        while not outcome.done():
            wait([outcome], timeout=0.1)
            deadline = _deadline(deadline, stop)
            if deadline is not None and time.monotonic() > deadline:
                raise Interrupted("stopped before a chunk of steps was done")
        return outcome.result()


def _deadline(deadline: float | None, stop: Flag) -> float | None:
    return time.monotonic() + GRACE_SECONDS if deadline is None and stop.is_set() else deadline


def _run_in_processes(jobs: list[Job], workers: int, bars: Bars) -> list[Any]:
    context = multiprocessing.get_context("spawn")
    messages: multiprocessing.Queue[tuple[str, int, str]] = context.Queue()
    stop = _SharedFlag(context)
    pool = ProcessPoolExecutor(workers, context, _start_worker, (messages, stop))
    try:
        with _interrupts_raise(stop):
            with _interrupts_held():
                futures = [pool.submit(_run_in_worker, job) for job in jobs]
            pending: set[Future[Any]] = set(futures)
            deadline: float | None = None
            while pending:
                finished, pending = wait(pending, timeout=0.1, return_when=FIRST_COMPLETED)
                _show(messages, bars)
                if stop.is_set():
                    deadline = _deadline(deadline, stop)
                    at_rest = all(future.done() or not future.running() for future in futures)
                    if at_rest or (deadline is not None and time.monotonic() > deadline):
                        raise Interrupted("stopped")
                    continue
                for future in finished:
                    future.result()
        _show(messages, bars)
        pool.shutdown()  # nothing runs any more: workers end by themselves, and give back what they hold
        return [future.result() for future in futures]
    except BrokenProcessPool as error:
        if stop.is_set():  # SIGTERM went to the workers as well
            raise Interrupted("stopped") from error
        raise MetalibError(
            "a worker process was ended from outside (out of memory?); run the same command again"
        ) from error
    finally:
        _end(pool)
        messages.close()
        messages.join_thread()


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Within the body, Ctrl-C waits; in processes that start there it does so for good.

    A terminal sends it to all, and a worker that has not got round to ignoring it would end with a traceback.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end(pool: ProcessPoolExecutor) -> None:
    """End the jobs that still run, and wait until nothing of the pool is left.

    Its thread as well: at exit Python wakes that through a pipe, which the thread may be closing at that very moment.
    """
    workers = list((getattr(pool, "_processes", None) or {}).values())
    for process in workers:
        process.terminate()
    pool.shutdown(cancel_futures=True)
    for process in workers:
        process.join()


def _show(messages: "multiprocessing.Queue[tuple[str, int, str]]", bars: Bars) -> None:
    while True:
        try:
            name, done, detail = messages.get_nowait()
        except queue.Empty:
            return
        bars.advance(name, done, detail)


class _Worker:
    """What a worker process was given when it started."""

    messages: "multiprocessing.Queue[tuple[str, int, str]]"
    stop: Flag


def _start_worker(messages: "multiprocessing.Queue[tuple[str, int, str]]", stop: Flag) -> None:
    _Worker.messages, _Worker.stop = messages, stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to all; the stage raises the flag
    die_with_parent(signal.SIGKILL)
    torch.set_num_threads(1)


def _run_in_worker(job: Job) -> Any:
    control = Control(lambda done, detail="": _Worker.messages.put((job.name, done, detail)), _Worker.stop)
    return job.function(*job.arguments, control)
