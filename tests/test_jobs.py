"""Jobs in processes: their results, that they can be stopped, and that they leave nothing behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from metalib.config import MachineSettings
from metalib.meta_training.checkpoints import saved_steps
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


def run_script(folder, text):
    """Run a script of its own file, which processes that are spawned can import."""
    script = folder / "script.py"
    script.write_text(text)
    command = [sys.executable, str(script)]
    return subprocess.run(
        command, capture_output=True, text=True, check=True, env={"PYTHONPATH": str(ROOT)}, timeout=60
    )


def test_workers_end_by_themselves_and_leave_no_semaphore_behind(tmp_path):
    done = run_script(tmp_path, SCRIPT)
    assert done.stdout.splitlines()[-1] == "[1, 4, 9]"
    assert "leaked" not in done.stderr


FAILING = """
import threading, time
from stages.jobs import Job, run_jobs

def fail(control):
    raise ValueError("the first job fails")

def work(control):
    time.sleep(600)

if __name__ == "__main__":
    try:
        run_jobs([Job("fails", 1, fail, ()), Job("works", 1, work, ())], 2, "units")
    except ValueError as error:
        print(error, [thread.name for thread in threading.enumerate()])
"""


def test_a_job_that_fails_ends_the_others_and_leaves_no_thread_behind(tmp_path):
    """A pool's thread that outlived it would be woken at exit through a pipe that it is closing: a traceback."""
    done = run_script(tmp_path, FAILING)
    assert done.stdout == "the first job fails ['MainThread']\n"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("workers", "n_jobs", "expected"),
    [("auto", 1, 1), ("auto", 2, 2), ("auto", 3, 3), ("auto", 4, 2), ("auto", 15, 2), (1, 3, 1), (2, 3, 2), (8, 3, 3)],
)
def test_how_many_processes_work(monkeypatch, workers, n_jobs, expected):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1}, raising=False)
    assert worker_count(MachineSettings(workers=workers), n_jobs) == expected


STOPPED = """
import time
from pathlib import Path
import torch, typer
from metalib.meta_training.checkpoints import Checkpoints, Progress
from stages.jobs import Job, run_jobs
from stages.running import PARAMS, stage

def work(name, control):
    checkpoints = Checkpoints(Path(f"{name}.safetensors"), "key", 1e9, control.stop.is_set)
    progress = checkpoints.restore(torch.ones(1, dtype=torch.float64))
    hold = progress.steps + 10
    for step in range(progress.steps + 1, 41):
        progress = Progress(step, progress.state * 1.1 + len(name), {})
        if step == hold:
            if name == "stuck":
                checkpoints.save(progress)
            Path(f"{name}.holds").touch()
            while not Path("go").exists() and (name == "stuck" or not control.stop.is_set()):
                time.sleep(0.01)
        checkpoints.keep(progress)
        control.advance(step)
    return progress.state.item()

def main():
    with stage("made_up", PARAMS):
        print(run_jobs([Job(name, 40, work, (name,)) for name in ("stuck", "polite", "queued")], 2, "units"))

if __name__ == "__main__":
    typer.run(main)
"""
INTERRUPTED = "interrupted: made_up: stopped\n"


def result(name):
    """Return what a job of the script finds, stopped or not."""
    value = 1.0
    for _ in range(40):
        value = value * 1.1 + len(name)
    return value


def start(folder):
    (folder / "script.py").write_text(STOPPED)
    return subprocess.Popen(
        [sys.executable, "script.py"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(ROOT)},
        start_new_session=True,  # a group of its own, as a terminal gives it
    )


def wait_for(condition, seconds):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert condition()


def group_is_gone(number):
    try:
        os.killpg(number, 0)
    except ProcessLookupError:
        return True
    return False


def stop_it(process, number):
    """Send a signal as it is sent: the terminal's Ctrl-C to all processes, SIGTERM to the stage alone."""
    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)


def test_processes_that_are_stopped_save_end_soon_and_continue_to_the_same_result(project_files):
    """Of the two jobs that run, one ends when asked and one never would; a third has not begun."""
    for number, steps in ((signal.SIGTERM, 10), (signal.SIGINT, 20)):
        process = start(project_files)
        holding = [project_files / f"{name}.holds" for name in ("stuck", "polite")]
        wait_for(lambda: all(path.exists() for path in holding), 60)  # noqa: B023 (called at once)
        asked = time.monotonic()
        stop_it(process, number)
        output, error = process.communicate(timeout=60)
        assert time.monotonic() - asked < 2
        assert (process.returncode, output, error) == (130, "", INTERRUPTED)
        wait_for(lambda: group_is_gone(process.pid), 2)  # noqa: B023
        for path in holding:
            assert saved_steps(path.with_suffix(".safetensors")) == steps
            path.unlink()
    (project_files / "go").touch()
    output, error = start(project_files).communicate(timeout=60)
    assert output == f"{[result(name) for name in ('stuck', 'polite', 'queued')]}\n", error


def test_ctrl_c_while_workers_start_ends_without_a_traceback(project_files):
    process = start(project_files)
    workers = f"/proc/{process.pid}/task/{process.pid}/children"
    if not Path(workers).exists():
        process.kill()
        pytest.skip("only Linux tells which processes have started")
    wait_for(lambda: len(Path(workers).read_text().split()) >= 2, 60)  # a worker, and multiprocessing's own helper
    stop_it(process, signal.SIGINT)
    assert process.communicate(timeout=60) == ("", INTERRUPTED)
    assert process.returncode == 130
    wait_for(lambda: group_is_gone(process.pid), 2)
