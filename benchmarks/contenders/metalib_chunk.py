"""metalib's own meta-step, repeated by one of its backends as training does it."""

from torch import Tensor

from benchmarks.contenders.catalogue import Run
from benchmarks.problem import Problem
from metalib.compilation import Backend
from metalib.compilation.repeat import at
from metalib.losses import Episode
from metalib.meta_training.adam import Adam
from metalib.meta_training.supervised import MetaStep, initial_state


def prepare_with(backend: Backend, problem: Problem, theta: Tensor, episodes: Episode) -> Run:
    """Return the chunk of meta-steps as the backend makes it."""
    adam = Adam(problem.outer_rate)
    program = backend(MetaStep(problem.objective(), adam), initial_state(theta, adam), at(episodes, 0))

    def run(theta: Tensor, episodes: Episode) -> Tensor:
        state, _ = program(initial_state(theta, adam), episodes)
        phi: Tensor = state.phi
        return phi

    return run
