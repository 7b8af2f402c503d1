"""Jobs in processes: their results, and that they leave nothing behind."""

import subprocess
import sys
from pathlib import Path

import pytest

from metalib.config import MachineSettings
from stages.jobs import worker_count

ROOT = Path(__file__).resolve().parent.parent

SCRIPT = """
import multiprocessing
from stages.jobs import Job, run_jobs

HELD = []

def work(n, control):
    HELD.append(multiprocessing.get_context("spawn").Lock())  # as libraries hold them, until their process ends
    control.advance(n)
    return n * n

if __name__ == "__main__":
    print(run_jobs([Job(str(n), n, work, (n,)) for n in (1, 2, 3)], 2, "units"))
"""


def test_workers_end_by_themselves_and_leave_no_semaphore_behind(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={"PYTHONPATH": str(ROOT)}, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "[1, 4, 9]"
    assert "leaked" not in done.stderr


@pytest.mark.parametrize(
    ("workers", "n_jobs", "expected"),
    [("auto", 1, 1), ("auto", 2, 2), ("auto", 3, 3), ("auto", 4, 2), ("auto", 15, 2), (1, 3, 1), (2, 3, 2), (8, 3, 3)],
)
def test_how_many_processes_work(monkeypatch, workers, n_jobs, expected):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1}, raising=False)
    assert worker_count(MachineSettings(workers=workers), n_jobs) == expected
