"""Losses as functions ``(theta, batch) -> scalar`` of one task, and the data they are given."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from metalib.networks import Network

Loss = Callable[[Tensor, Any], Tensor]
"""``(theta [n_parameters], batch of one task) -> scalar``; pure, so that vmap and grad apply."""


class Batch(NamedTuple):
    """Labelled examples: inputs ``x`` and targets ``y``.

    In regression ``x`` ``[..., n, d_in]`` and ``y`` ``[..., n, d_out]``; in classification ``x``
    ``[..., n, channels, height, width]`` and ``y`` ``[..., n]``, the numbers of the classes.
    """

    x: Tensor
    y: Tensor


class Episode(NamedTuple):
    """The data of a task: ``support`` (the talk's D_train) to adapt on, ``query`` (D_test) to be judged on."""

    support: Batch
    query: Batch

    def inner_batches(self, steps: int) -> list[Batch]:
        """Return the data of each inner step: the whole support."""
        return [self.support] * steps


class MinibatchEpisode(NamedTuple):
    """An episode whose inner steps each see a part of the support (algorithm 2 of Ravi and Larochelle 2017).

    ``order`` ``[..., steps, b]`` holds the numbers of the support examples of each inner step.
    """

    support: Batch
    query: Batch
    order: Tensor

    def inner_batches(self, steps: int) -> list[Batch]:
        """Return the data of each inner step, for one task."""
        rows = self.order[:steps]
        return [Batch(self.support.x[row], self.support.y[row]) for row in rows]


def draw_order(generator: torch.Generator, shape: tuple[int, ...], steps: int, size: int, n_support: int) -> Tensor:
    """Draw which ``size`` of ``n_support`` examples each inner step sees, all different, ``[*shape, steps, size]``.

    Raises:
        ValueError: ``size`` is not from 1 to ``n_support``.
    """
    if not 1 <= size <= n_support:
        raise ValueError(f"an inner batch must hold from 1 to {n_support} of the support examples, got {size}")
    uniform = torch.rand(*shape, steps, n_support, generator=generator, device=generator.device)
    return uniform.argsort(dim=-1)[..., :size]


@dataclass(frozen=True)
class MeanSquaredError:
    """``L(theta, (x, y)) = mean |f_theta(x_i) - y_i|^2`` over the examples and outputs of a regression network f.

    The paper prints a sum over the K examples and calls it a mean; the mean is used here, so that one
    inner rate serves every K.
    """

    network: Network

    def __call__(self, theta: Tensor, batch: Batch) -> Tensor:
        """Return the loss of one task, a scalar; ``theta`` ``[n_parameters]``."""
        return torch.mean((self.network(theta, batch.x) - batch.y) ** 2)


@dataclass(frozen=True)
class CrossEntropy:
    """``L(theta, (x, y)) = -mean_i log softmax(f_theta(x_i))[y_i]``, the cross-entropy over N classes.

    The talk prints ``y log f - (1 - y) log(1 - f)``, which rewards wrong answers; see docs/talk-errata.md.
    """

    network: Network

    def __call__(self, theta: Tensor, batch: Batch) -> Tensor:
        """Return the loss of one task, a scalar; ``theta`` ``[n_parameters]``."""
        return nn.functional.cross_entropy(self.network(theta, batch.x), batch.y)


def error_rate(network: Network) -> Loss:
    """Return ``(theta, batch) -> 1 - accuracy``; 1 where an output is not a number, which no choice should favour."""

    def share(theta: Tensor, batch: Batch) -> Tensor:
        outputs = network(theta, batch.x)
        right = (outputs.argmax(dim=-1) == batch.y) & torch.isfinite(outputs).all(dim=-1)
        return 1 - right.to(theta.dtype).mean()

    return share


LOSSES: dict[str, Callable[[Network], Loss]] = {
    "mean_squared_error": MeanSquaredError,
    "cross_entropy": CrossEntropy,
}
"""Losses that training minimises, by the name that artefacts store."""
