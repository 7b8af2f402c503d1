"""Training as the stages run it: seeds batched, state saved between chunks, curves recorded."""

import fcntl
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np
import torch

from metalib.compilation import (
    Backend,
    Program,
    PythonLoop,
    Step,
    compile_scan,
    cuda_graph_obstacle,
    obstacle,
    repeat_eagerly,
    replay_steps,
)
from metalib.config import Decay, MachineSettings
from metalib.errors import Interrupted
from metalib.meta_training.adam import Adam
from metalib.meta_training.averaging import empty_average
from metalib.meta_training.checkpoints import Checkpoints, Progress, saved_steps, state_key
from metalib.meta_training.objectives import Objective
from metalib.meta_training.supervised import CHUNK_STEPS, DrawChunk, initial_state, train
from metalib.networks import Architecture
from metalib.randomness import generator
from metalib.storage import StorageError
from metalib.trained_method import versions
from metalib.update_rules import UpdateRule
from stages.jobs import GRACE_SECONDS, Control
from stages.running import Run, StageError, choose_device


class Compilation(NamedTuple):
    """Whether compiling pays: from how many meta-steps on, and what may stand in its way on the CPU (None: nothing)."""

    from_steps: int
    obstacle: Callable[[Path], str | None] = obstacle


NEVER = 10**9 + 1
"""More than any number of steps."""
SMALL_LEARNER = Compilation(10_000)
"""Fewer steps of a small learner take less time than compiling them."""

LONG_SECONDS = GRACE_SECONDS / 2
"""What takes longer may not end while an interrupt waits, so its result is saved at once."""

LATE_SHARE = 0.25
"""Of a run, the end over which ``decay: late_cosine`` lowers the learning rate."""


@dataclass(frozen=True)
class Trainer:
    """How training runs on this machine; plain values, so that a worker process can be handed one.

    Args:
        device: "cpu" or "cuda".
        backend: "compiled" or "eager".
        state: folder of this run's saved state, named by its key.
        every_seconds: the least time between two savings.
    """

    device: str
    backend: str
    state: Path
    every_seconds: float

    def state_file(self, job: str) -> Path:
        """Return where a job's state is saved."""
        return self.state / f"{job}.safetensors"

    def checkpoints(self, job: str, control: Control) -> Checkpoints:
        """Return a job's saved state; it is saved, too, when the stage is asked to stop."""
        return Checkpoints(
            self.state_file(job),
            self.state.name,
            self.every_seconds,
            control.stop.is_set,
            long_seconds=LONG_SECONDS,
        )

    def run(
        self,
        job: str,
        objective: Objective,
        adam: Adam,
        phi: torch.Tensor,
        draw: DrawChunk,
        n_steps: int,
        seeds: tuple[int, ...],
        control: Control,
        backend: Backend,
        chunk_steps: int = CHUNK_STEPS,
        averaged_share: float = 0.0,
    ) -> tuple[np.ndarray, dict[int, float]]:
        """Train, from saved state where there is some; return phi ``[seeds, n_phi]`` and the training curve.

        ``backend`` repeats the meta-step, see :meth:`loop_backend`. With ``averaged_share`` above 0, phi is its mean
        over the ends of the chunks in that last share of the steps.

        The curve has a point a chunk: the loss averaged over the chunk's steps and seeds, by its last step.
        """
        checkpoints = self.checkpoints(job, control)
        initial = initial_state(phi.to(self.device), adam)
        progress = checkpoints.restore((initial, empty_average(initial.phi)))
        control.advance(progress.steps)
        chunks = train(
            objective,
            adam,
            progress.state[0],
            draw,
            n_steps,
            seeds,
            first_step=progress.steps,
            backend=_stoppable(backend, control),
            chunk_steps=chunk_steps,
        )
        try:
            for chunk in chunks:
                curve = {**progress.curve, chunk.steps: chunk.losses.double().mean().item()}
                average = progress.state[1]
                if n_steps - chunk.steps < averaged_share * n_steps:
                    average = average.include(chunk.state.phi)
                progress = Progress(chunk.steps, (chunk.state, average), curve)
                checkpoints.keep(progress)
                control.advance(chunk.steps)
        except _StoppedWithinChunk:
            if progress.steps:
                checkpoints.save(progress)
            raise
        state, average = progress.state
        return average.mean(otherwise=state.phi).cpu().numpy(), progress.curve

    def loop_backend(self) -> Backend:
        """Return what repeats the meta-step: one compiled program, on CUDA a graph, or Python's loop."""
        if self.backend == "eager":
            return repeat_eagerly
        return partial(compile_scan if self.device == "cpu" else replay_steps, folder=programs_folder())


@contextmanager
def training(
    run: Run, n_steps: int, determinants: Mapping[str, Any], compilation: Compilation = SMALL_LEARNER
) -> Iterator[Trainer]:
    """Give a stage the means to train; state saved on the way is kept unless the body ends well.

    Args:
        run: the stage.
        n_steps: how long training is, which decides whether compiling pays.
        compilation: from how many on it does.
        determinants: plain data that, with sources, versions, device and backend, determine the result.

    Raises:
        StageError: another process runs the same training, or CUDA is asked for and there is none.
        Interrupted: passed on from the body, with a line on what is saved.
    """
    device = choose_device(run.machine)
    backend = choose_backend(run.machine, device, n_steps, compilation)
    key = state_key({**determinants, "sources": run.sources, **versions(device, backend)})
    folder = cache_folder() / "training" / key
    with _sole_owner(folder):
        try:
            yield Trainer(device.type, backend, folder, run.machine.checkpoint_seconds)
        except Interrupted as error:
            raise Interrupted(_what_is_saved(folder)) from error
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _sole_owner(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder of saved state, so that no two runs write the same state.

    Raises:
        StageError: another process holds it.
        StorageError: it cannot be written.
    """
    lock = folder.with_suffix(".lock")
    with _locked(lock):
        yield
        lock.unlink(missing_ok=True)


def _locked(lock: Path) -> TextIO:
    """Return the file ``lock``, open and locked until it is closed; raises as :func:`_sole_owner` does."""
    while True:
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            file = lock.open("w")
        except OSError as error:
            raise StorageError(f"cannot write {lock} ({error.strerror}); check the folder and its rights") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            raise StageError("another process runs this very training; wait for it, or end it") from error
        except OSError as error:
            file.close()
            raise StorageError(f"cannot lock {lock} ({error.strerror}); keep the project on another disk") from error
        if _is_at(file, lock):
            return file
        file.close()  # between our opening and locking it, its owner ended and deleted it: nobody else would see it


def _is_at(file: TextIO, path: Path) -> bool:
    """Whether ``path`` still names the open file."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _what_is_saved(folder: Path) -> str:
    saved = [f"{path.stem} at step {saved_steps(path):,}" for path in sorted(folder.glob("*.safetensors"))]
    if not saved:
        return "nothing was saved yet; the same command starts again"
    return f"saved: {', '.join(saved)}; the same command continues there"


class _StoppedWithinChunk(Interrupted):
    """A chunk of steps was given up; the state before it stands."""


def _stoppable(backend: Backend, control: Control) -> Backend:
    """Return a backend whose programs, where Python repeats the steps, give up before a step when asked to stop.

    A chunk of slow steps would keep the user waiting. What is compiled runs as it is.
    """

    def build(step: Step, state: Any, data: Any) -> Program:
        def step_unless_stopped(state: Any, data: Any) -> tuple[Any, torch.Tensor]:
            if control.stop.is_set():
                raise _StoppedWithinChunk("stopped within a chunk of steps")
            return step(state, data)

        program = backend(step, state, data)
        return PythonLoop(step_unless_stopped) if isinstance(program, PythonLoop) else program

    return build


def initial_thetas(architecture: Architecture, seeds: tuple[int, ...], std: float) -> torch.Tensor:
    """Draw each seed's initial parameters ``[seeds, n_parameters]``; the same for every method of one architecture."""
    return torch.stack([architecture.initial_theta(generator(seed, "initial theta"), std) for seed in seeds])


def initial_omegas(rule: UpdateRule, seeds: tuple[int, ...]) -> torch.Tensor:
    """Draw the initial learned parameters of an update rule for each seed, ``[seeds, n_omega]``."""
    return torch.stack([rule.initial_omega(generator(seed, "initial omega")) for seed in seeds])


def outer_adam(
    learning_rate: float, decay: Decay, n_steps: int, clip_norm: float | None, epsilon: float = Adam.epsilon
) -> Adam:
    """Return the optimiser of an outer loop of ``n_steps``, as the settings describe it."""
    adam = Adam(learning_rate, epsilon=epsilon, clip_norm=clip_norm)
    if decay == "none":
        return adam
    falling = n_steps if decay == "cosine" else math.ceil(LATE_SHARE * n_steps)
    return replace(adam, cosine_steps=falling, constant_steps=n_steps - falling)


def cache_folder() -> Path:
    """Return the project's cache; DVC says where the project is, also when it runs a copy of it."""
    return Path(os.environ.get("DVC_ROOT", ".")).resolve() / ".cache"


def programs_folder() -> Path:
    """Return where compiled programs are kept."""
    return cache_folder() / "programs"


def choose_backend(
    machine: MachineSettings,
    device: torch.device,
    n_steps: int,
    compilation: Compilation = SMALL_LEARNER,
    say: Callable[[str], Any] = print,
) -> str:
    """Return "compiled" or "eager": what the machine settings ask for, or with auto what is faster here."""
    if machine.backend != "auto":
        return machine.backend
    # The kernels that pay from few steps on are for the CPU.
    least = 0 if device.type == "cpu" else SMALL_LEARNER.from_steps
    if n_steps < max(compilation.from_steps, least):
        return "eager"
    reason = compilation.obstacle(programs_folder()) if device.type == "cpu" else cuda_graph_obstacle()
    if reason is None:
        return "compiled"
    say(f"note: training runs uncompiled, which is slower: {reason}")
    return "eager"
