"""The trust-region step: the natural gradient, scaled to a bound on the divergence, and a line search.

Schulman, Levine, Moritz, Jordan and Abbeel (2015), appendix C.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

Product = Callable[[Tensor], Tensor]
"""``v [n] -> F v [n]`` for a symmetric positive semi-definite F."""


class Problem(Protocol):
    """What a trust-region step minimises, around the parameters phi ``[n]`` at which its data were collected."""

    def gradient(self, phi: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss, a scalar, and its gradient ``[n]``."""

    def curvature(self, phi: Tensor) -> Product:
        """Return the product with the Hessian of the divergence at phi."""

    def evaluate(self, phi: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss at phi and the divergence of phi from where the data were collected, two scalars."""


@dataclass(frozen=True)
class TrustRegion:
    """Settings of a trust-region step.

    Args:
        bound: the largest divergence (mean KL, in nats) that a step may cause.
        conjugate_gradient_steps: iterations for the direction.
        damping: added to the curvature's diagonal.
        shrink: what a rejected step is multiplied with.
        tries: steps that the line search tries at most.

    Raises:
        ValueError: a setting is out of range.
    """

    bound: float = 0.01
    conjugate_gradient_steps: int = 10
    damping: float = 1e-5
    shrink: float = 0.8
    tries: int = 15

    def __post_init__(self) -> None:
        if not 0 < self.bound < math.inf:
            raise ValueError(f"bound must be a positive finite number, got {self.bound}")
        if not 0 <= self.damping < math.inf:
            raise ValueError(f"damping must be 0 or more and finite, got {self.damping}")
        if not 0 < self.shrink < 1:
            raise ValueError(f"shrink must be between 0 and 1, got {self.shrink}")
        if min(self.conjugate_gradient_steps, self.tries) < 1:
            raise ValueError("conjugate_gradient_steps and tries must be 1 or more")


class Step(NamedTuple):
    """What a trust-region step did: parameters ``phi`` ``[n]``, the ``loss`` before and after, the ``divergence``.

    ``accepted`` is False where the line search found no step, and phi then is where it was.
    """

    phi: Tensor
    loss_before: float
    loss_after: float
    divergence: float
    accepted: bool


def trust_region_step(problem: Problem, phi: Tensor, settings: TrustRegion) -> Step:
    """Lower the problem's loss from ``phi`` ``[n]`` within the bound on the divergence.

    With g the gradient and F the damped curvature, the step is ``-sqrt(2 bound / x^T F x) x`` for ``x = F^-1 g``,
    shrunk until the loss is lower and the divergence, both exact, is within the bound.
    """
    loss, gradient = problem.gradient(phi)
    before = loss.item()
    rejected = Step(phi, before, before, 0.0, accepted=False)
    curvature = problem.curvature(phi)

    def damped(vector: Tensor) -> Tensor:
        return curvature(vector) + settings.damping * vector

    direction = conjugate_gradients(damped, gradient, settings.conjugate_gradient_steps)
    steepness = torch.dot(direction, damped(direction)).item()
    if not 0 < steepness < math.inf:
        return rejected
    full = -math.sqrt(2 * settings.bound / steepness) * direction
    for attempt in range(settings.tries):
        candidate = phi + settings.shrink**attempt * full
        after, divergence = (value.item() for value in problem.evaluate(candidate))
        if -math.inf < after < before and divergence <= settings.bound:  # False where one of them is not a number
            return Step(candidate, before, after, divergence, accepted=True)
    return rejected


def conjugate_gradients(product: Product, target: Tensor, steps: int, tolerance: float = 1e-10) -> Tensor:
    """Return x ``[n]`` with ``F x`` near ``target`` ``[n]`` (Hestenes and Stiefel 1952), starting from 0.

    Args:
        product: of the matrix F.
        target: the right side.
        steps: iterations at most; as many as F has distinct eigenvalues are exact.
        tolerance: iterations end where the squared residual is below it.
    """
    x = torch.zeros_like(target)
    residual, direction = target.clone(), target.clone()
    squared = torch.dot(residual, residual)
    for _ in range(steps):
        if squared.item() < tolerance:
            break
        along = product(direction)
        length = squared / torch.dot(direction, along)
        x = x + length * direction
        residual = residual - length * along
        squared, previous = torch.dot(residual, residual), squared
        direction = residual + squared / previous * direction
    return x
