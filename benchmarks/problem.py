"""What is measured: the meta-step of the sinusoid experiment, in any size, and its data."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from metalib.losses import Episode, MeanSquaredError
from metalib.meta_training.objectives import Objective, QueryLossAfterAdaptation
from metalib.networks import MLP
from metalib.randomness import generator
from metalib.tasks import Sinusoid
from metalib.update_rules import GradientDescent


@dataclass(frozen=True)
class Problem:
    """One meta-step: ``tasks`` tasks of a network 1-width-width-1, second order, Adam on the mean query loss.

    The defaults are those of Finn et al. (2017), section 5.1, at K = 10.

    Args:
        tasks: tasks a meta-step.
        support: examples of a task to adapt on (the paper's K).
        query: examples of a task to be judged on.
        width: units in each of two hidden layers.
        inner_steps: gradient steps on the support loss.
        seeds: independent runs in one program.
        inner_rate: of these gradient steps.
        outer_rate: Adam's learning rate.
        initial_std: of the initial weights, before truncation.
    """

    tasks: int = 25
    support: int = 10
    query: int = 10
    width: int = 40
    inner_steps: int = 1
    seeds: int = 1
    inner_rate: float = 0.01
    outer_rate: float = 1e-3
    initial_std: float = 0.01

    @property
    def sizes(self) -> tuple[int, ...]:
        """The network's layers, from inputs to outputs."""
        return (1, self.width, self.width, 1)

    def objective(self) -> Objective:
        """Return what metalib minimises."""
        loss = MeanSquaredError(MLP(self.sizes).network())
        return QueryLossAfterAdaptation(loss, GradientDescent(self.inner_rate), self.inner_steps)


def initial_theta(problem: Problem) -> Tensor:
    """Return where training starts, ``[seeds, n_parameters]``."""
    architecture = MLP(problem.sizes)
    numbers = [generator(seed, "benchmark theta") for seed in range(problem.seeds)]
    return torch.stack([architecture.initial_theta(each, problem.initial_std) for each in numbers])


def draw_episodes(problem: Problem, steps: int) -> Episode:
    """Return the data of ``steps`` meta-steps, ``[steps, seeds, tasks, n, 1]``."""
    shape = (steps, problem.seeds, problem.tasks)
    episodes = Sinusoid().draw_episodes(generator(0, "benchmark episodes"), shape, problem.support, problem.query)
    made: Episode = tree_map(torch.Tensor.contiguous, episodes)
    return made


def layer_shapes(problem: Problem) -> list[tuple[int, int]]:
    """Return each layer's (outputs, inputs); theta holds, layer by layer, the weight and then the bias."""
    return list(zip(problem.sizes[1:], problem.sizes[:-1], strict=True))


def to_layers(theta: Tensor, problem: Problem) -> list[Tensor]:
    """Return weight and bias of each layer, as copies of parts of theta ``[n_parameters]``."""
    pieces = []
    start = 0
    for n_out, n_in in layer_shapes(problem):
        for shape in ((n_out, n_in), (n_out,)):
            size = n_out * n_in if len(shape) == 2 else n_out
            pieces.append(theta[start : start + size].reshape(shape).clone())
            start += size
    return pieces


def to_theta(layers: list[Tensor]) -> Tensor:
    """Return theta ``[1, n_parameters]`` of one seed; the inverse of :func:`to_layers`."""
    return torch.cat([layer.detach().reshape(-1) for layer in layers])[None]
