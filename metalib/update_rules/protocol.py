"""What the inner loop asks of an update rule."""

from typing import Any, Protocol

import torch
from torch import Tensor


class UpdateRule(Protocol):
    """A value that says how theta moves. What it learns itself, if anything, is the flat vector omega.

    The meta-parameters are phi = (theta_0, omega). Rules are pure: they hold settings, never state.
    Shapes are those of one task; the inner loop adds tasks and seeds with vmap.
    """

    @property
    def first_order(self) -> bool:
        """Whether gradient and loss count as constants of the meta-parameters (no second derivatives)."""

    @property
    def n_omega(self) -> int:
        """The number of learned parameters of the rule, the length of omega."""

    def initial_omega(self, generator: torch.Generator) -> Tensor:
        """Draw omega ``[n_omega]`` as meta-training starts with it."""

    def initial_state(self, theta: Tensor) -> Any:
        """Return the state (a tree of tensors) before the first step from ``theta`` ``[n_parameters]``."""

    def step(self, omega: Tensor, theta: Tensor, gradient: Tensor, loss: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Return theta and state after one inner step.

        Args:
            omega: learned parameters of the rule, ``[n_omega]``.
            theta: the learner's parameters, ``[n_parameters]``.
            gradient: of the support loss at theta, ``[n_parameters]``.
            loss: the support loss at theta, a scalar.
            state: what the previous step, or :meth:`initial_state`, returned.
        """

    def to_dict(self) -> dict[str, Any]:
        """Return the rule as plain data, which artefacts store."""
