"""Losses as functions ``(theta, batch) -> scalar`` of one task."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metalib.networks import Network

Loss = Callable[[Tensor, Any], Tensor]
"""``(theta [n_parameters], batch of one task) -> scalar``; pure, so that vmap and grad apply."""


class Batch(NamedTuple):
    """Labelled examples: inputs ``x`` ``[..., n, d_in]`` and targets ``y`` ``[..., n, d_out]``."""

    x: Tensor
    y: Tensor


class Episode(NamedTuple):
    """The data of a task: ``support`` (the talk's D_train) to adapt on, ``query`` (D_test) to be judged on."""

    support: Batch
    query: Batch


def mean_squared_error(network: Network) -> Loss:
    """Return ``L(theta, (x, y)) = mean_i |f_theta(x_i) - y_i|^2`` for a regression network.

    The paper prints a sum over the K examples and calls it a mean; the mean is used here, so that one
    inner rate serves every K.
    """

    def loss(theta: Tensor, batch: Batch) -> Tensor:
        return torch.mean((network(theta, batch.x) - batch.y) ** 2)

    return loss
