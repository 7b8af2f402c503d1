"""Training that is killed at any moment, run again, ends with the bytes of a run that was not."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from metalib.compilation import can_compile
from tools.clone import clone_work_tree
from tools.quick import set_scale

ROOT = Path(__file__).resolve().parent.parent.parent
STEPS = 3000
KILLS = 20


def settings(folder, backend, workers=1, shots="[5]", steps=STEPS):
    """Small training that saves after every chunk."""
    params = folder / "params.yaml"
    set_scale(params, "quick")
    text = re.sub(r"(meta_train: {meta_steps: )\d+(, seeds: \[0, 1\]})", rf"\g<1>{steps}\2", params.read_text())
    text = re.sub(r"shots: \[.*\](    # K: MAML)", rf"shots: {shots}\1", text).replace("[40, 40]", "[8, 8]")
    text = text.replace("shots: 10             # K", "shots: 5")
    text = text.replace("meta_batch: 25        # tasks a meta-step", "meta_batch: 4")
    params.write_text(text)
    (folder / "machine.yaml").write_text(f"backend: {backend}\nworkers: {workers}\ncheckpoint_seconds: 0\n")


def command(folder, stage, *arguments):
    environment = {k: v for k, v in os.environ.items() if k != "DVC_ROOT"}
    return subprocess.Popen(
        [sys.executable, "-m", f"stages.{stage}", *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def train(folder, output):
    return command(folder, "meta_train", "maml", "data", output)


def finish(process):
    _, error = process.communicate()
    assert process.returncode == 0, error


@pytest.fixture(scope="module", name="clone")
def _clone(tmp_path_factory):
    clone = tmp_path_factory.mktemp("kill") / "clone"
    clone_work_tree(ROOT, clone)
    finish(command(clone, "generate_tasks", "data"))
    return clone


def saved(clone):
    return list((clone / ".cache" / "training").glob("*/*.safetensors"))


def wait_until_saved(clone, process):
    while not saved(clone) and process.poll() is None:
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("backend", "signals"), [("compiled", [signal.SIGKILL] * KILLS), ("eager", [signal.SIGTERM] * 3)]
)
def test_a_run_killed_at_random_moments_ends_with_the_same_bytes(clone, backend, signals):
    if backend == "compiled" and not can_compile(clone / ".cache" / "programs"):
        pytest.skip("nothing can be compiled here, so there is no compiled path to test")
    settings(clone, backend)
    started = time.monotonic()
    finish(train(clone, f"{backend}-whole"))
    duration = time.monotonic() - started
    assert saved(clone) == []  # success leaves no state behind
    moments = random.Random(0)
    resumed = 0
    for number in signals:
        process = train(clone, f"{backend}-killed")
        wait_until_saved(clone, process) if moments.random() < 0.5 else None
        time.sleep(moments.uniform(0, 0.3 * duration / len(signals)))
        process.send_signal(number)
        process.communicate()
        resumed += bool(saved(clone))
        if process.returncode == 0:
            break
    assert resumed > 0
    finish(train(clone, f"{backend}-killed"))
    for path in (clone / f"{backend}-whole").iterdir():
        assert path.read_bytes() == (clone / f"{backend}-killed" / path.name).read_bytes(), path.name
    assert saved(clone) == []


def assert_resumes(clone, stage, *arguments):
    """Run a training stage whole, and once killed several times; both must write the same bytes."""
    finish(command(clone, stage, *arguments, "whole"))
    resumed = 0
    for pause in (0.0, 0.2, 0.4):
        process = command(clone, stage, *arguments, "killed")
        wait_until_saved(clone, process)
        time.sleep(pause)
        process.kill()
        process.communicate()
        resumed += bool(saved(clone))
    assert resumed > 0
    finish(command(clone, stage, *arguments, "killed"))
    for path in (clone / "whole").iterdir():
        assert path.read_bytes() == (clone / "killed" / path.name).read_bytes(), path.name


def test_a_killed_classifier_ends_with_the_same_bytes(clone):
    """The LSTM meta-learner on images, with its kernel where there is a compiler."""
    settings(clone, "auto")
    params = clone / "params.yaml"
    text = params.read_text().replace("meta_steps: 10, seeds", "meta_steps: 200, seeds")
    params.write_text(text.replace("{filters: 8}", "{filters: 3}"))
    finish(command(clone, "generate_image_tasks", "images"))
    assert_resumes(clone, "meta_train_classifier", "lstm", "images")


def test_a_killed_policy_search_ends_with_the_same_bytes(clone):
    settings(clone, "auto")
    params = clone / "params.yaml"
    params.write_text(params.read_text().replace("ant_dir: 2, point_navigation: 5", "ant_dir: 2, point_navigation: 40"))
    finish(command(clone, "generate_goals", "point_navigation", "goals"))
    assert_resumes(clone, "meta_train_policy", "point_navigation", "goals")


def test_ctrl_c_ends_soon_and_says_what_is_saved(clone):
    settings(clone, "eager")
    process = train(clone, "interrupted")
    wait_until_saved(clone, process)
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, error = process.communicate()
    assert time.monotonic() - started < 2
    assert process.returncode == 130
    assert error.startswith("interrupted: meta_train@sinusoid-maml: saved: k5-seed")
    assert "the same command continues there" in error
    assert not (clone / "interrupted").exists()


def test_ctrl_c_reaches_worker_processes_and_the_same_command_continues_to_the_same_bytes(clone):
    settings(clone, "eager", workers=2, shots="[5, 10]", steps=400)
    finish(train(clone, "workers-whole"))
    others = len(saved(clone))
    process = train(clone, "workers")
    while len(saved(clone)) < others + 2 and process.poll() is None:
        time.sleep(0.01)
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, error = process.communicate()
    assert time.monotonic() - started < 2
    assert process.returncode == 130
    told = error.splitlines()[-1]
    assert told.startswith("interrupted: meta_train@sinusoid-maml: saved: k10-seed")
    assert ", k5-seed" in told
    finish(train(clone, "workers"))
    for path in (clone / "workers-whole").iterdir():
        assert path.read_bytes() == (clone / "workers" / path.name).read_bytes(), path.name


def test_torn_state_is_passed_over_and_a_second_run_at_once_is_refused(clone):
    settings(clone, "eager")
    finish(train(clone, "whole"))
    process = train(clone, "torn")
    wait_until_saved(clone, process)
    second = train(clone, "torn")
    _, error = second.communicate()
    assert second.returncode == 1
    assert "another process runs this very training" in error
    process.kill()
    process.communicate()
    (state,) = saved(clone)
    state.write_bytes(state.read_bytes()[:-10])
    finish(train(clone, "torn"))
    assert (clone / "torn/k5.safetensors").read_bytes() == (clone / "whole/k5.safetensors").read_bytes()
