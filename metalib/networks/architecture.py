"""What the rest asks of the description of a network."""

from typing import Any, Protocol

import torch
from torch import Tensor

from metalib.networks.network import Network


class Architecture(Protocol):
    """Sizes only: plain data from which the network is built, and which artefacts store."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input."""

    @property
    def n_outputs(self) -> int:
        """The number of outputs."""

    def network(self) -> Network:
        """Return the pure function ``(theta, x) -> y``, ``x`` ``[n, *input_shape]``, ``y`` ``[n, n_outputs]``."""

    def initial_theta(self, generator: torch.Generator, std: float) -> Tensor:
        """Draw theta ``[n_parameters]`` as training starts with it."""

    def to_dict(self) -> dict[str, Any]:
        """Return the description as plain data; the inverse of :func:`metalib.networks.from_dict`."""
