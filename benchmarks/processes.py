"""Every measurement runs in a process of its own, its threads and processors set before any library is imported."""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import cores

ROOT = Path(__file__).resolve().parent.parent
_RESULT = "result: "
_ERROR = "error: "
_READY = "ready\n"


class MeasurementError(RuntimeError):
    """A measurement failed; the message is the cause in one line."""


def measure(function: str, arguments: dict[str, Any], on: Sequence[int], folder: Path) -> Any:
    """Return ``function(**arguments, threads=len(on))`` from a new process.

    Args:
        function: ``"module:name"``.
        arguments: plain data.
        on: the processors it may use; one thread each.
        folder: for what its compilers keep.

    Raises:
        MeasurementError: the function raised.
    """
    return _finish(_start(function, arguments, on, folder))


def measure_side_by_side(function: str, arguments: dict[str, Any], folder: Path, count: int) -> list[Any]:
    """Return the results of ``count`` processes of one thread, on a processor each, that begin timing together."""
    mine = cores()
    arguments = {**arguments, "side_by_side": True}
    started = [_start(function, arguments, [mine[index % len(mine)]], folder) for index in range(count)]
    for process in started:
        assert process.stdout is not None
        line = process.stdout.readline()
        if line != _READY:
            for each in started:
                each.kill()
            return [_finish(process, line)]
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return [_finish(process) for process in started]


def wait_for_the_others() -> None:
    """Say in a measuring process that all is ready, and wait until the others are; see :func:`measure_side_by_side`."""
    sys.stdout.write(_READY)
    sys.stdout.flush()
    sys.stdin.readline()


def _start(function: str, arguments: dict[str, Any], on: Sequence[int], folder: Path) -> "subprocess.Popen[str]":
    order = {"function": function, "arguments": {**arguments, "threads": len(on)}, "cores": list(on)}
    command = [sys.executable, "-m", "benchmarks.processes", json.dumps(order)]
    pipe = subprocess.PIPE
    environment = _environment(len(on), folder)
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd=ROOT, env=environment)


def _environment(threads: int, folder: Path) -> dict[str, str]:
    counts = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    own = {
        "CUDA_VISIBLE_DEVICES": "",
        "JAX_PLATFORMS": "cpu",
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
        "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false" if threads == 1 else "",
    }
    return {**os.environ, **counts, **own}


def _finish(process: "subprocess.Popen[str]", read: str = "") -> Any:
    """Wait for the end of a process; return its result. ``read`` is what was read of its output before."""
    out, err = process.communicate()
    for line in (read + out).splitlines():
        if line.startswith(_RESULT):
            return json.loads(line.removeprefix(_RESULT))
        if line.startswith(_ERROR):
            raise MeasurementError(line.removeprefix(_ERROR))
    last = [line for line in err.splitlines() if line.strip()][-1:]
    raise MeasurementError(": ".join([f"a measuring process ended with code {process.returncode}", *last]))


def _work(order: dict[str, Any]) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, order["cores"])
    module, name = order["function"].split(":")
    try:
        result = getattr(importlib.import_module(module), name)(**order["arguments"])
    except Exception as error:  # whatever it is, the process that waits for the result reports it
        message = " ".join(str(error).split())
        sys.stdout.write(f"{_ERROR}{type(error).__name__}: {message[:400]}\n")
        return
    sys.stdout.write(f"{_RESULT}{json.dumps(result)}\n")


if __name__ == "__main__":
    _work(json.loads(sys.argv[1]))
