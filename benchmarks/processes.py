"""Every measurement runs in a process of its own, with its threads and processors set before any library is imported."""

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
    """Return the results of ``count`` processes of one thread, on a processor each, that begin their timing together."""
    mine = cores()
    arguments = {**arguments, "side_by_side": True}
    started = [_start(function, arguments, [mine[index % len(mine)]], folder) for index in range(count)]
    for process in started:
        assert process.stdout is not None
        if process.stdout.readline() != _READY:
            for other in started:
                other.kill()
            return [_finish(process)]
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return [_finish(process) for process in started]


def _start(function: str, arguments: dict[str, Any], on: Sequence[int], folder: Path) -> "subprocess.Popen[str]":
    order = {"function": function, "arguments": {**arguments, "threads": len(on)}, "cores": list(on)}
    command = [sys.executable, "-m", "benchmarks.processes", json.dumps(order)]
    pipe = subprocess.PIPE
    environment = _environment(len(on), folder)
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd=ROOT, env=environment)


def _environment(threads: int, folder: Path) -> dict[str, str]:
    counts = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    one = {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"} if threads == 1 else {}
    own = {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "", "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor")}
    return {**os.environ, **counts, **one, **own}


def _finish(process: "subprocess.Popen[str]") -> Any:
    out, err = process.communicate()
    for line in out.splitlines():
        if line.startswith(_RESULT):
            return json.loads(line.removeprefix(_RESULT))
    cause = [line for line in err.splitlines() if line.strip()]
    raise MeasurementError(cause[-1] if cause else f"a measuring process ended with code {process.returncode}")


def _work(order: dict[str, Any]) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, order["cores"])
    module, name = order["function"].split(":")
    result = getattr(importlib.import_module(module), name)(**order["arguments"])
    sys.stdout.write(f"{_RESULT}{json.dumps(result)}\n")


if __name__ == "__main__":
    _work(json.loads(sys.argv[1]))
