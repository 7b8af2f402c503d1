"""metalib's own meta-step, a batched one over tasks and seeds, in a Python loop over steps."""

from pathlib import Path

from torch import Tensor

from benchmarks.contenders.catalogue import Run
from benchmarks.problem import Problem
from metalib.losses import Batch, Episode
from metalib.meta_training.adam import Adam
from metalib.meta_training.supervised import TrainingState, meta_step


def prepare(problem: Problem, theta: Tensor, episodes: Episode, folder: Path) -> Run:
    """Return the loop; nothing is compiled."""
    adam, objective = Adam(problem.outer_rate), problem.objective()

    def run(theta: Tensor, episodes: Episode) -> Tensor:
        state = TrainingState(theta, adam.initial_state(theta))
        for step in range(len(episodes.support.x)):
            support, query = (Batch(part.x[step], part.y[step]) for part in episodes)
            state, _ = meta_step(objective, adam, state, Episode(support, query))
        return state.phi

    return run
