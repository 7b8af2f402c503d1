"""Gradient descent: the update rule of MAML."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class GradientDescent:
    """``theta <- theta - rate * gradient``, the inner step of MAML (Finn et al. 2017, equation 1).

    Args:
        rate: the inner rate alpha, above 0.
        first_order: treat the gradient as a constant of theta_0 (first-order MAML, section 5.2).

    Raises:
        ValueError: ``rate`` is not a positive finite number.
    """

    rate: float
    first_order: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.rate < float("inf"):
            raise ValueError(f"rate must be a positive finite number, got {self.rate}")

    @property
    def n_omega(self) -> int:
        """0: gradient descent learns nothing beside theta_0."""
        return 0

    def initial_omega(self, generator: torch.Generator) -> Tensor:
        """Return the empty vector; nothing is drawn."""
        return torch.zeros(0)

    def initial_state(self, theta: Tensor) -> tuple[()]:
        """Return the empty state: the rule has no memory."""
        return ()

    def step(
        self, omega: Tensor, theta: Tensor, gradient: Tensor, loss: Tensor, state: tuple[()]
    ) -> tuple[Tensor, tuple[()]]:
        """Return ``theta - rate * gradient``; shapes as in the protocol."""
        return theta - self.rate * gradient, state

    def to_dict(self) -> dict[str, Any]:
        """Return the rule as plain data."""
        return {"kind": "gradient_descent", "rate": self.rate, "first_order": self.first_order}


def rate_name(rate: float) -> str:
    """Return the name of a rate in stored results: all its digits, so that no two rates have one name."""
    return repr(rate).removesuffix(".0")
