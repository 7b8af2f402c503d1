"""metalib's own meta-step, a chunk of steps compiled ahead of time into one program for one thread."""

from pathlib import Path

from metalib.meta_training.compilation import compile_chunk
from torch import Tensor

from benchmarks.contenders.catalogue import Run
from benchmarks.problem import Problem
from metalib.losses import Episode
from metalib.meta_training.adam import Adam
from metalib.meta_training.supervised import TrainingState


def prepare(problem: Problem, theta: Tensor, episodes: Episode, folder: Path) -> Run:
    """Compile the chunk into ``folder``, or load it from there."""
    adam = Adam(problem.outer_rate)
    state = TrainingState(theta, adam.initial_state(theta))
    program = compile_chunk(problem.objective(), adam, state, episodes, folder=folder)

    def run(theta: Tensor, episodes: Episode) -> Tensor:
        state, _ = program(TrainingState(theta, adam.initial_state(theta)), episodes)
        return state.phi

    return run
