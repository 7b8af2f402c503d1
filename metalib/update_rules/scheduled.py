"""Gradient descent with a rate for each step."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class ScheduledGradientDescent:
    """``theta_{t+1} = theta_t - rates[t] * gradient_t``; steps beyond the last rate repeat it.

    As Finn et al. (2017) adapt policies at test: the rate of training first, a smaller one from the second step on.

    Args:
        rates: of each step, above 0.
        first_order: treat gradients as constants of theta_0.

    Raises:
        ValueError: there is no rate, or one is not a positive finite number.
    """

    rates: tuple[float, ...]
    first_order: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "rates", tuple(self.rates))  # a list, where it comes from a file
        if not self.rates or not all(0 < rate < math.inf for rate in self.rates):
            raise ValueError(f"rates must be positive finite numbers, at least one, got {self.rates}")

    @property
    def n_omega(self) -> int:
        """0: nothing is learned beside theta_0."""
        return 0

    def initial_omega(self, generator: torch.Generator) -> Tensor:
        """Return the empty vector; nothing is drawn."""
        return torch.zeros(0)

    def initial_state(self, theta: Tensor) -> int:
        """Return the number of the first step."""
        return 0

    def step(self, omega: Tensor, theta: Tensor, gradient: Tensor, loss: Tensor, state: int) -> tuple[Tensor, int]:
        """Return ``theta - rates[state] * gradient``; shapes as in the protocol."""
        return theta - self.rates[min(state, len(self.rates) - 1)] * gradient, state + 1

    def to_dict(self) -> dict[str, Any]:
        """Return the rule as plain data."""
        return {"kind": "scheduled_gradient_descent", "rates": list(self.rates), "first_order": self.first_order}
