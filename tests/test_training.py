"""Training as the stages run it: what an interrupt loses, and that no two runs write one state."""

import fcntl
import threading
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from metalib.compilation import compile_scan, repeat_eagerly, replay_steps
from metalib.config import MachineSettings
from metalib.errors import Interrupted
from metalib.losses import Batch
from metalib.meta_training import checkpoints
from metalib.meta_training.adam import Adam
from metalib.meta_training.checkpoints import Checkpoints, Progress, saved_steps
from metalib.meta_training.fused_mlp import fuse
from metalib.storage import save_tensors
from stages import policies, training
from stages.jobs import Control
from stages.running import StageError
from stages.training import LONG_SECONDS, Trainer, _sole_owner

CHUNK, STEPS = 4, 12
NEVER = 1e9


@dataclass
class Objective:
    """A made-up loss that calls ``at_step`` with the number of every meta-step, as Python's loop comes to it."""

    at_step: object = None
    begun: int = 0

    def __call__(self, phi, batch):
        self.begun += 1
        if callable(self.at_step):
            self.at_step(self.begun)
        return ((phi - batch.x) ** 2).sum()


def draw(first, count):
    return Batch(torch.arange(first, first + count).float().reshape(count, 1, 1, 1), torch.zeros(count, 1, 1, 1))


def train(folder, objective, control, backend, kind="compiled", steps=STEPS, share=0.0):
    trainer = Trainer("cpu", kind, folder, every_seconds=NEVER)
    start = torch.zeros(1, 3)
    return trainer.run("job", objective, Adam(0.1), start, draw, steps, (0,), control, backend, CHUNK, share)


def control(stop=None):
    return Control(lambda *_: None, stop or threading.Event())


BACKENDS = {
    "python": lambda _: repeat_eagerly,
    "what the kernel leaves to Python": lambda folder: partial(fuse, folder=folder, otherwise=repeat_eagerly),
}


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("kind", ["compiled", "eager"])
def test_a_chunk_that_python_repeats_is_given_up_and_the_one_before_is_saved(tmp_path, name, kind):
    """The LSTM rule with its kernel counts as compiled, and its meta-step is repeated by Python all the same."""
    backend, stop = BACKENDS[name](tmp_path), threading.Event()
    whole = train(tmp_path / "whole", Objective(), control(), backend, kind)
    objective = Objective(lambda begun: stop.set() if begun == CHUNK + 2 else None)
    with pytest.raises(Interrupted, match="within a chunk"):
        train(tmp_path / "parts", objective, control(stop), backend, kind)
    assert objective.begun == CHUNK + 2
    assert saved_steps(tmp_path / "parts/job.safetensors") == CHUNK
    phi, curve = train(tmp_path / "parts", Objective(), control(), backend, kind)
    assert phi.tobytes() == whole[0].tobytes()
    assert curve == whole[1]


@pytest.mark.parametrize(("share", "averaged"), [(0.0, [12]), (0.3, [12]), (0.5, [8, 12]), (1.0, [4, 8, 12])])
def test_phi_is_the_mean_over_the_last_share_of_the_steps(tmp_path, share, averaged):
    ends = {n: train(tmp_path / str(n), Objective(), control(), repeat_eagerly, steps=n)[0] for n in (4, 8, 12)}
    phi, curve = train(tmp_path / "job", Objective(), control(), repeat_eagerly, share=share)
    expected = torch.stack([torch.from_numpy(ends[n]).double() for n in averaged]).mean(dim=0).float()
    assert torch.equal(torch.from_numpy(phi), expected)
    assert list(curve) == [4, 8, 12]


def test_a_run_stopped_while_phi_is_averaged_continues_to_the_same_bytes(tmp_path):
    whole, _ = train(tmp_path / "whole", Objective(), control(), repeat_eagerly, share=1.0)
    stop = threading.Event()
    objective = Objective(lambda begun: stop.set() if begun == 2 * CHUNK + 1 else None)
    with pytest.raises(Interrupted, match="within a chunk"):
        train(tmp_path / "parts", objective, control(stop), repeat_eagerly, share=1.0)
    continued, _ = train(tmp_path / "parts", Objective(), control(), repeat_eagerly, share=1.0)
    assert continued.tobytes() == whole.tobytes()


def test_no_chunk_too_many_is_averaged(tmp_path):
    """0.9 of 40 steps are 36, though 1 - 0.9 is less than 0.1 in floating point."""
    ends = [train(tmp_path / str(n), Objective(), control(), repeat_eagerly, steps=n)[0] for n in range(8, 41, CHUNK)]
    phi, _ = train(tmp_path / "job", Objective(), control(), repeat_eagerly, steps=40, share=0.9)
    assert torch.equal(
        torch.from_numpy(phi), torch.stack([torch.from_numpy(end).double() for end in ends]).mean(0).float()
    )


@pytest.mark.parametrize("from_steps", [1, 1_000, 10_000])
@pytest.mark.parametrize(
    ("backend", "steps", "obstacle", "chosen"),
    [
        ("auto", 10_000, None, "compiled"),
        ("auto", 9_999, None, "eager"),
        ("auto", 10_000, "PyTorch finds no Triton", "eager"),
        ("eager", 10_000, None, "eager"),
        ("compiled", 1, None, "compiled"),
    ],
)
def test_what_repeats_steps_on_cuda(monkeypatch, from_steps, backend, steps, obstacle, chosen):
    """Where the CPU's kernels pay from few steps on, too: CUDA does not have them."""
    monkeypatch.setattr(training, "cuda_graph_obstacle", lambda: obstacle)
    said: list[str] = []
    machine, pays = MachineSettings(device="cuda", backend=backend), training.Compilation(from_steps)
    assert training.choose_backend(machine, torch.device("cuda"), steps, pays, said.append) == chosen
    assert [obstacle in line for line in said] == ([True] if obstacle else [])


@pytest.mark.parametrize(
    ("device", "backend", "repeats"),
    [("cpu", "compiled", compile_scan), ("cuda", "compiled", replay_steps), ("cuda", "eager", repeat_eagerly)],
)
def test_each_kind_of_device_has_a_loop_of_its_own(tmp_path, device, backend, repeats):
    loop = Trainer(device, backend, tmp_path, every_seconds=NEVER).loop_backend()
    assert getattr(loop, "func", loop) is repeats


def test_a_program_that_is_not_pythons_runs_as_it_is(tmp_path):
    programs = []

    def backend(step, state, data):
        loop = repeat_eagerly(step, state, data)
        programs.append(partial(loop))
        return programs[-1]

    assert training._stoppable(backend, control())(lambda state, data: (state, data), None, None) is programs[0]


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self):
        return self.now


@dataclass
class Saved:
    """Checkpoints with a clock of their own, and what is saved so far."""

    path: Path
    stop: threading.Event = field(default_factory=threading.Event)
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self):
        self.checkpoints = Checkpoints(self.path, "key", 30.0, self.stop.is_set, self.clock, LONG_SECONDS)

    def after(self, seconds, steps):
        """Return which steps are saved when those given took ``seconds``."""
        self.clock.now += seconds
        self.checkpoints.keep(Progress(steps, torch.zeros(1), {}))
        return saved_steps(self.path)


def test_what_took_long_is_saved_at_once_and_the_rest_now_and_then(tmp_path):
    saved = Saved(tmp_path / "job.safetensors")
    assert saved.after(0.9 * LONG_SECONDS, 1) == 0
    assert saved.after(1.1 * LONG_SECONDS, 2) == 2
    assert saved.after(0.9 * LONG_SECONDS, 3) == 2
    assert saved.after(5.0, 4) == 4
    assert [saved.after(0.25, steps) for steps in range(5, 125)] == [4] * 119 + [124]
    saved.stop.set()
    with pytest.raises(Interrupted):
        saved.after(0.25, 125)
    assert saved_steps(saved.path) == 125


def test_saving_takes_a_small_share_of_the_time_on_a_slow_disk_too(tmp_path, monkeypatch):
    saved, times = Saved(tmp_path / "job.safetensors"), []

    def save_slowly(*arguments):
        saved.clock.now += 0.1
        times.append(saved.clock.now)
        save_tensors(*arguments)

    monkeypatch.setattr(checkpoints, "save_tensors", save_slowly)
    for steps in range(1, 201):
        saved.after(1.0, steps)
    assert 0.015 < 0.1 * len(times) / saved.clock.now < 0.021


class State(NamedTuple):
    phi: torch.Tensor
    curve: torch.Tensor


class Search:
    """A made-up search whose meta-steps do nothing."""

    def start(self, phi, n_steps):
        return State(phi, torch.zeros(n_steps, 4, dtype=torch.float64))

    def run(self, state, first):
        for step in range(first, len(state.curve)):
            yield State(state.phi + step, state.curve)


@dataclass
class Plan:
    method: str = "maml"
    n_steps: int = 5

    def search(self, seed, threads):
        return Search()

    def initial_phi(self, seed):
        return torch.zeros(2)


def test_a_slow_meta_step_of_a_policy_is_saved_when_it_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "LONG_SECONDS", -1.0)  # every meta-step is slow,
    monkeypatch.setattr(checkpoints, "SAVING_SHARE", float("inf"))  # beside saving, too
    plan: Any = Plan()
    trainer, found = Trainer("cpu", "eager", tmp_path, NEVER), []

    def advance(*_):
        found.append(saved_steps(tmp_path / "maml-seed0.safetensors"))

    policies.search_policy(plan, 0, 1, trainer, Control(advance, threading.Event()))
    assert found == [0, 1, 2, 3, 4, 5]


def test_a_run_that_waited_for_the_lock_of_one_that_ended_has_a_lock_of_its_own(tmp_path, monkeypatch):
    """Between opening and locking the file, its owner may end and delete it."""
    folder, flock = tmp_path / "key", fcntl.flock
    owner = _sole_owner(folder)
    owner.__enter__()

    def lock_after_the_owner_ends(file, operation):
        monkeypatch.setattr(fcntl, "flock", flock)
        owner.__exit__(None, None, None)
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", lock_after_the_owner_ends)
    with _sole_owner(folder):
        with pytest.raises(StageError, match="another process runs this very training"), _sole_owner(folder):
            pass
        assert folder.with_suffix(".lock").exists()
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_a_run_that_failed_is_free(tmp_path):
    with pytest.raises(ValueError), _sole_owner(tmp_path / "key"):
        raise ValueError
    with _sole_owner(tmp_path / "key"):
        pass
    assert list(tmp_path.iterdir()) == []
