"""What is measured: a meta-step of MAML or of the LSTM rule, on random images or sinusoids."""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from metalib.losses import Batch, CrossEntropy, Episode, Loss, MeanSquaredError
from metalib.meta_parameters import join
from metalib.meta_training.adam import Adam
from metalib.meta_training.objectives import Objective, QueryLossAfterAdaptation
from metalib.meta_training.supervised import TrainingState, initial_state
from metalib.networks import MLP, Conv4
from metalib.randomness import generator
from metalib.tasks import Sinusoid
from metalib.update_rules import GradientDescent, LSTMRule, UpdateRule


@dataclass(frozen=True)
class Problem:
    """One meta-step: Adam on the mean query loss after adaptation, from the initial parameters of training.

    Args:
        learner: "mlp", 1-width-width-1 on sinusoids, or "conv4", with stride, on images of one channel.
        method: "maml", second order, or "lstm", exact with 20 hidden units and a clipped meta-gradient.
        tasks: tasks a meta-step.
        shots: support examples of a task; of images, of each class.
        queries: query examples of a task; of images, of each class.
        inner_steps: T.
        width: hidden units, or filters.
        ways: classes of an image task.
        size: height and width of an image.
        inner_rate: of MAML.
    """

    learner: Literal["mlp", "conv4"]
    method: Literal["maml", "lstm"]
    tasks: int
    shots: int
    queries: int
    inner_steps: int
    width: int
    ways: int = 5
    size: int = 28
    inner_rate: float = 0.4

    @property
    def architecture(self) -> MLP | Conv4:
        """The learner's network."""
        if self.learner == "mlp":
            return MLP((1, self.width, self.width, 1))
        return Conv4((1, self.size, self.size), self.width, self.ways)

    @property
    def rule(self) -> UpdateRule:
        """How the learner moves."""
        return LSTMRule(first_order=False) if self.method == "lstm" else GradientDescent(self.inner_rate)

    @property
    def adam(self) -> Adam:
        """The outer optimiser."""
        return Adam(clip_norm=0.25 if self.method == "lstm" else None)

    @property
    def coordinates(self) -> int:
        """The number of the learner's parameters."""
        return self.architecture.network().n_parameters

    @property
    def coordinate_steps(self) -> int:
        """How often a meta-step moves a coordinate of a learner: coordinates, tasks and inner steps multiplied."""
        return self.coordinates * self.tasks * self.inner_steps

    def objective(self, rule: UpdateRule) -> Objective:
        """Return what metalib minimises; ``rule`` is the problem's or a faster one that computes the same."""
        network = self.architecture.network()
        loss: Loss = MeanSquaredError(network) if self.learner == "mlp" else CrossEntropy(network)
        return QueryLossAfterAdaptation(loss, rule, self.inner_steps)

    def parts(self) -> list[slice]:
        """Return where in phi each of the learner's parameters lies, and omega where there is one."""
        slices = [slice(view.start, view.stop) for view in self.architecture.network().layout]
        omega = [slice(self.coordinates, None)] if self.rule.n_omega else []
        return slices + omega


CONVOLUTIONS = Problem("conv4", "maml", tasks=8, shots=1, queries=5, inner_steps=1, width=32)
MORE_SHOTS = replace(CONVOLUTIONS, shots=5)
LSTM_ON_SINUSOIDS = Problem("mlp", "lstm", tasks=5, shots=10, queries=10, inner_steps=5, width=40)
LSTM_ON_IMAGES = Problem("conv4", "lstm", tasks=1, shots=1, queries=5, inner_steps=12, width=32)


def start(problem: Problem, seeds: int = 1) -> TrainingState:
    """Return the state before the first meta-step."""
    rule = problem.rule
    phis = [
        join(
            problem.architecture.initial_theta(generator(seed, "benchmark theta"), std=0.01),
            rule.initial_omega(generator(seed, "benchmark omega")),
        )
        for seed in range(seeds)
    ]
    return initial_state(torch.stack(phis), problem.adam)


def draw_episodes(problem: Problem, steps: int) -> Episode:
    """Return the data of ``steps`` meta-steps, ``[steps, 1 seed, tasks, n, ...]``; images are noise in [0, 1]."""
    numbers = generator(0, "benchmark episodes")
    shape = (steps, 1, problem.tasks)
    if problem.learner == "mlp":
        made: Episode = tree_map(
            Tensor.contiguous, Sinusoid().draw_episodes(numbers, shape, problem.shots, problem.queries)
        )
        return made
    return Episode(*(_images(problem, numbers, shape, examples) for examples in (problem.shots, problem.queries)))


def _images(problem: Problem, numbers: torch.Generator, shape: tuple[int, ...], examples: int) -> Batch:
    labels = torch.arange(problem.ways).repeat_interleave(examples)
    x = torch.rand(*shape, len(labels), 1, problem.size, problem.size, generator=numbers)
    return Batch(x, labels.expand(*shape, -1).contiguous())
