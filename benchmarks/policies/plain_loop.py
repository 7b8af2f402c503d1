"""MAML-TRPO as plain PyTorch: a loop over tasks, ``torch.autograd.grad`` and nothing of metalib.

It does the same mathematics as careful code would: the old distributions are computed once, the graphs of the
divergence's gradients are kept for all products, and padding never enters.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

_ACTIVATIONS = {"tanh": torch.tanh, "relu": torch.relu}


class Steps(NamedTuple):
    """One task's steps: observations ``[n, o]``, actions ``[n, a]``, advantages and old log probabilities ``[n]``."""

    observations: Tensor
    actions: Tensor
    advantages: Tensor
    log_probabilities: Tensor


class Task(NamedTuple):
    """What a task's learner lived through before and after its inner step."""

    support: Steps
    query: Steps


@dataclass(frozen=True)
class Settings:
    """Settings of policy and steps, named as in the library; ``sizes`` are of the layers."""

    sizes: tuple[int, ...]
    activation: str
    inner_rate: float
    kl_bound: float
    conjugate_gradient_steps: int
    damping: float
    shrink: float
    tries: int


class PlainLoop:
    """The objective and its trust-region step from phi ``[n]``.

    Args:
        settings: of policy and steps.
        phi: theta_0, at which the tasks' records were made.
        tasks: with all their steps.
        thinned: with those on which the curvature is taken.
    """

    def __init__(self, settings: Settings, phi: Tensor, tasks: Sequence[Task], thinned: Sequence[Task]) -> None:
        self.settings, self.phi, self.tasks, self.thinned = settings, phi, tasks, thinned

    def adapted(self) -> Tensor:
        """Return theta_1 of every task, ``[task, n]``."""
        rows = []
        for task in self.tasks:
            parameters = self._inner_step(self._leaves(self.phi), task.support, create_graph=False)
            rows.append(_flat(parameters).detach())
        return torch.stack(rows)

    def gradient(self) -> tuple[Tensor, Tensor]:
        """Return the mean loss after adaptation, a scalar, and its gradient ``[n]``."""
        losses, gradients = [], []
        for task in self.tasks:
            leaves = self._leaves(self.phi)
            loss = self._loss(self._inner_step(leaves, task.support, create_graph=True), task.query)
            gradients.append(_flat(torch.autograd.grad(loss, leaves)))
            losses.append(loss.detach())
        return torch.stack(losses).mean(), torch.stack(gradients).mean(dim=0)

    def curvature(self) -> Callable[[Tensor], Tensor]:
        """Return the product with the Hessian of the mean divergence at phi, by double backward."""
        graphs = []
        for task in self.thinned:
            leaves = self._leaves(self.phi)
            new = self._distribution(self._inner_step(leaves, task.support, create_graph=True), task.query.observations)
            old = (new[0].detach(), new[1].detach())
            gradients = torch.autograd.grad(_divergence(old, new), leaves, create_graph=True)
            graphs.append((leaves, _flat(gradients)))

        def product(vector: Tensor) -> Tensor:
            total = torch.zeros_like(vector)
            for leaves, gradient in graphs:
                along = torch.dot(gradient, vector)
                total += _flat(torch.autograd.grad(along, leaves, retain_graph=True))
            return total / len(graphs)

        return product

    def evaluate(self, phi: Tensor, acted: list[tuple[Tensor, Tensor]]) -> tuple[float, float]:
        """Return the mean loss of ``phi`` after adaptation, and the mean divergence from those that ``acted``."""
        losses, divergences = [], []
        for task, old in zip(self.tasks, acted, strict=True):
            parameters = self._inner_step(self._leaves(phi), task.support, create_graph=False)
            with torch.no_grad():
                new = self._distribution(parameters, task.query.observations)
                losses.append(_surrogate(new, task.query))
                divergences.append(_divergence(old, new))
        return torch.stack(losses).mean().item(), torch.stack(divergences).mean().item()

    def step(self) -> tuple[Tensor, bool]:
        """Return phi after a trust-region step, and whether the line search found one."""
        settings = self.settings
        loss, gradient = self.gradient()
        curvature = self.curvature()

        def damped(vector: Tensor) -> Tensor:
            return curvature(vector) + settings.damping * vector

        direction = _conjugate_gradients(damped, gradient, settings.conjugate_gradient_steps)
        steepness = torch.dot(direction, damped(direction)).item()
        full = -math.sqrt(2 * settings.kl_bound / steepness) * direction
        acted = self._acted()
        for attempt in range(settings.tries):
            candidate = self.phi + settings.shrink**attempt * full
            after, divergence = self.evaluate(candidate, acted)
            if after < loss.item() and divergence <= settings.kl_bound:
                return candidate, True
        return self.phi, False

    def _acted(self) -> list[tuple[Tensor, Tensor]]:
        """Return the distributions of the policies that acted, one a task."""
        found = []
        for task in self.tasks:
            parameters = self._inner_step(self._leaves(self.phi), task.support, create_graph=False)
            with torch.no_grad():
                found.append(self._distribution(parameters, task.query.observations))
        return found

    def _leaves(self, phi: Tensor) -> list[Tensor]:
        """Return weight and bias of each layer, and the log standard deviation, as leaves of a new graph."""
        sizes = self.settings.sizes
        shapes = [shape for n_in, n_out in pairwise(sizes) for shape in ((n_out, n_in), (n_out,))]
        shapes.append((sizes[-1],))
        pieces = phi.detach().split([math.prod(shape) for shape in shapes])
        return [piece.view(shape).requires_grad_() for piece, shape in zip(pieces, shapes, strict=True)]

    def _inner_step(self, parameters: list[Tensor], support: Steps, create_graph: bool) -> list[Tensor]:
        gradients = torch.autograd.grad(self._loss(parameters, support), parameters, create_graph=create_graph)
        rate = self.settings.inner_rate
        return [value - rate * gradient for value, gradient in zip(parameters, gradients, strict=True)]

    def _loss(self, parameters: list[Tensor], steps: Steps) -> Tensor:
        return _surrogate(self._distribution(parameters, steps.observations), steps)

    def _distribution(self, parameters: list[Tensor], observations: Tensor) -> tuple[Tensor, Tensor]:
        *layers, log_std = parameters
        x = observations
        for layer in range(0, len(layers), 2):
            x = _ACTIVATIONS[self.settings.activation](x) if layer else x
            x = torch.nn.functional.linear(x, layers[layer], layers[layer + 1])
        return x, log_std


def _surrogate(distribution: tuple[Tensor, Tensor], steps: Steps) -> Tensor:
    mean, log_std = distribution
    standardised = (steps.actions - mean) / log_std.exp()
    log_probabilities = (-0.5 * standardised.square() - log_std - 0.5 * math.log(2 * math.pi)).sum(dim=-1)
    return -(torch.exp(log_probabilities - steps.log_probabilities) * steps.advantages).mean()


def _divergence(old: tuple[Tensor, Tensor], new: tuple[Tensor, Tensor]) -> Tensor:
    """Return the mean over states of KL(old || new)."""
    variance, new_variance = (2 * old[1]).exp(), (2 * new[1]).exp()
    of_action = new[1] - old[1] + (variance + (old[0] - new[0]).square()) / (2 * new_variance) - 0.5
    return of_action.sum(dim=-1).mean()


def _conjugate_gradients(product: Callable[[Tensor], Tensor], target: Tensor, steps: int) -> Tensor:
    x, residual, direction = torch.zeros_like(target), target.clone(), target.clone()
    squared = torch.dot(residual, residual)
    for _ in range(steps):
        if squared < 1e-10:
            break
        along = product(direction)
        length = squared / torch.dot(direction, along)
        x += length * direction
        residual -= length * along
        before, squared = squared, torch.dot(residual, residual)
        direction = residual + squared / before * direction
    return x


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])
