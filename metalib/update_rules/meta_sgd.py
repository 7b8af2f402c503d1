"""Meta-SGD: gradient descent with a learned rate for every parameter."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class MetaSGD:
    """``theta <- theta - omega * gradient``, elementwise (Li, Zhou, Chen and Li 2017, equation 2).

    omega, the rate of each parameter, is meta-learned along with theta_0. It may become negative, as in the paper.

    Args:
        n_parameters: the length of theta, and so of omega.
        rate: what every rate starts at, above 0.
        first_order: treat gradients as constants of theta_0.

    Raises:
        ValueError: a setting is out of range.
    """

    n_parameters: int
    rate: float
    first_order: bool = False

    def __post_init__(self) -> None:
        if self.n_parameters < 1:
            raise ValueError(f"n_parameters must be 1 or more, got {self.n_parameters}")
        if not 0 < self.rate < float("inf"):
            raise ValueError(f"rate must be a positive finite number, got {self.rate}")

    @property
    def n_omega(self) -> int:
        """One rate for each parameter."""
        return self.n_parameters

    def initial_omega(self, generator: torch.Generator) -> Tensor:
        """Return the same rate for every parameter; nothing is drawn."""
        return torch.full((self.n_parameters,), self.rate)

    def initial_state(self, theta: Tensor) -> tuple[()]:
        """Return the empty state: the rule has no memory."""
        return ()

    def step(
        self, omega: Tensor, theta: Tensor, gradient: Tensor, loss: Tensor, state: tuple[()]
    ) -> tuple[Tensor, tuple[()]]:
        """Return ``theta - omega * gradient``; shapes as in the protocol."""
        return theta - omega * gradient, state

    def to_dict(self) -> dict[str, Any]:
        """Return the rule as plain data."""
        return {"kind": "meta_sgd", **asdict(self)}
