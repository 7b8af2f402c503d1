"""The fully connected network of the sinusoid experiments."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from metalib.networks.network import Network


@dataclass(frozen=True)
class MLP:
    """Fully connected network with ReLU between layers: the sinusoid network of Finn et al. (2017), 5.1.

    A plain description (sizes only) from which :meth:`network` builds the function and
    :meth:`initial_theta` draws parameters; it is what artefacts store, see :meth:`to_dict`.
    """

    sizes: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.sizes) < 2 or min(self.sizes) < 1:
            raise ValueError(f"sizes must name at least an input and an output of 1 or more, got {self.sizes}")

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input."""
        return self.sizes[:1]

    @property
    def n_outputs(self) -> int:
        """The number of outputs."""
        return self.sizes[-1]

    def network(self) -> "MLPNetwork":
        """Return the pure function ``(theta, x) -> y``, ``x`` ``[n, sizes[0]]``, ``y`` ``[n, sizes[-1]]``."""
        return MLPNetwork(self.sizes)

    def initial_theta(self, generator: torch.Generator, std: float) -> Tensor:
        """Draw theta ``[n_parameters]``: weights truncated normal at two ``std``, biases 0.

        With std 0.01 this is the released code's initialisation (cbfinn/maml).
        """
        network = self.network()
        theta = torch.zeros(network.n_parameters)
        for view in network.layout:
            if view.name.endswith("weight"):
                theta[view.start : view.stop] = truncated_normal(view.stop - view.start, generator) * std
        return theta

    def to_dict(self) -> dict[str, Any]:
        """Return the description as plain data; the inverse of :func:`metalib.networks.from_dict`."""
        return {"kind": "mlp", "sizes": list(self.sizes)}


class MLPNetwork(Network):
    """The function of an :class:`MLP`: theta holds, layer by layer, the weight ``[n_out, n_in]`` and the bias."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        layers: list[nn.Module] = []
        with torch.device("meta"):
            for n_in, n_out in pairwise(sizes):
                layers += [nn.Linear(n_in, n_out), nn.ReLU()]
        super().__init__(nn.Sequential(*layers[:-1]))
        self.sizes = sizes


def truncated_normal(n: int, generator: torch.Generator) -> Tensor:
    """Draw ``n`` standard normals conditioned on ``|z| <= 2`` by inverting the normal CDF."""
    low = 0.5 * (1 + math.erf(-2 / math.sqrt(2)))
    uniform = torch.rand(n, generator=generator, dtype=torch.float64)
    normal: Tensor = torch.special.ndtri(low + (1 - 2 * low) * uniform)
    return normal.float()
