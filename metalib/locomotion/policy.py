"""The Gaussian policy, as a pure function of one flat theta; and its fast form for acting with many tasks at once."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from metalib.networks import Network


class Activation(NamedTuple):
    """A nonlinearity: as a module, as a function, and as one that overwrites its argument."""

    module: type[nn.Module]
    function: Callable[[Tensor], Tensor]
    in_place: Callable[[Tensor], Tensor]


ACTIVATIONS: dict[str, Activation] = {
    "relu": Activation(nn.ReLU, torch.relu, torch.relu_),
    "tanh": Activation(nn.Tanh, torch.tanh, torch.tanh_),
}
_FEW = 16  # outputs of a layer


@dataclass(frozen=True)
class GaussianPolicy:
    """Actions ``a ~ N(mu(o), diag(sigma^2))``: a network gives mu; log sigma does not depend on the observation.

    theta ``[n_parameters]`` holds the network's parameters, then log sigma ``[action_size]``. All functions are pure
    and written for one theta; ``vmap`` adds tasks.

    Args:
        sizes: of the layers: observation, hidden layers, action. The paper's are 100-100 hidden units.
        activation: of :data:`ACTIVATIONS`; the paper's is relu.

    Raises:
        ValueError: fewer than two sizes, one below 1, or an unknown activation.
    """

    sizes: tuple[int, ...]
    activation: str = "relu"

    def __post_init__(self) -> None:
        if len(self.sizes) < 2 or min(self.sizes) < 1:
            raise ValueError(f"sizes must name at least an observation and an action of 1 or more, got {self.sizes}")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"unknown activation {self.activation!r}; known: {', '.join(ACTIVATIONS)}")

    @property
    def observation_size(self) -> int:
        """How many numbers an observation has."""
        return self.sizes[0]

    @property
    def action_size(self) -> int:
        """How many numbers an action has."""
        return self.sizes[-1]

    @cached_property
    def network(self) -> Network:
        """The mean, as a pure function of the first ``network.n_parameters`` entries of theta."""
        layers: list[nn.Module] = []
        with torch.device("meta"):
            for n_in, n_out in zip(self.sizes[:-1], self.sizes[1:], strict=True):
                layers += [nn.Linear(n_in, n_out), ACTIVATIONS[self.activation].module()]
        return Network(nn.Sequential(*layers[:-1]))

    @property
    def n_parameters(self) -> int:
        """The length of theta."""
        return self.network.n_parameters + self.action_size

    def distribution(self, theta: Tensor, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean ``[n, action_size]`` and log standard deviation ``[action_size]`` of the actions.

        Args:
            theta: ``[n_parameters]``.
            observations: ``[n, observation_size]``.
        """
        parameters, log_std = theta.split([self.network.n_parameters, self.action_size], dim=-1)
        # Not by calling the network: that swaps a module's parameters while it runs, which threads cannot share.
        views = list(self.network.unflatten(parameters).values())  # weight and bias of each layer in turn
        x = observations
        for layer, (weight, bias) in enumerate(zip(views[::2], views[1::2], strict=True)):
            x = nn.functional.linear(x if layer == 0 else ACTIVATIONS[self.activation].function(x), weight, bias)
        return x, log_std

    def log_probability(self, theta: Tensor, observations: Tensor, actions: Tensor) -> Tensor:
        """Return the log density ``[n]`` of ``actions`` ``[n, action_size]``, summed over the action's parts."""
        mean, log_std = self.distribution(theta, observations)
        standardised = (actions - mean) * torch.exp(-log_std)
        return -(0.5 * (standardised**2 + math.log(2 * math.pi)) + log_std).sum(dim=-1)

    def initial_theta(self, generator: torch.Generator, log_std: float = 0.0, output_scale: float = 1.0) -> Tensor:
        """Draw theta ``[n_parameters]``: weights uniform after Glorot and Bengio (2010), biases 0.

        Args:
            generator: of the weights.
            log_std: log standard deviation of the actions.
            output_scale: times the weights of the last layer. Below 1 it keeps the first mean actions away from the
                bounds of the motors, beyond which they make no difference and cannot be learned.
        """
        theta = torch.zeros(self.n_parameters)
        weights = [view for view in self.network.layout if view.name.endswith("weight")]
        for view in weights:
            bound = math.sqrt(6 / sum(view.shape)) * (output_scale if view is weights[-1] else 1.0)
            numbers = torch.empty(view.stop - view.start).uniform_(-bound, bound, generator=generator)
            theta[view.start : view.stop] = numbers
        theta[self.network.n_parameters :] = log_std
        return theta

    def check_thetas(self, thetas: Tensor) -> None:
        """Raise a ValueError unless ``thetas`` is ``[tasks, n_parameters]`` of float32."""
        if thetas.ndim != 2 or thetas.shape[1] != self.n_parameters or thetas.dtype != torch.float32:
            raise ValueError(
                f"thetas must be of shape [tasks, {self.n_parameters}] and float32 for a policy of sizes {self.sizes}, "
                f"got {list(thetas.shape)} of {thetas.dtype}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the policy as plain data, which artefacts store."""
        return {"kind": "gaussian policy", "sizes": list(self.sizes), "activation": self.activation}

    @classmethod
    def from_dict(cls, description: dict[str, Any]) -> "GaussianPolicy":
        """Return the policy that :meth:`to_dict` wrote.

        Raises:
            ValueError: the description is of something else.
        """
        if description.get("kind") != "gaussian policy":
            raise ValueError(f"unknown kind of policy {description.get('kind')!r}; known: 'gaussian policy'")
        return cls(tuple(description["sizes"]), description["activation"])


class Actor:
    """A policy with one theta a task, ready to act: no allocation but the first, one matrix product a layer.

    Args:
        policy: what to evaluate.
        thetas: ``[tasks, n_parameters]``.
        rollouts: how many rows each task has.
    """

    def __init__(self, policy: GaussianPolicy, thetas: Tensor, rollouts: int) -> None:
        policy.check_thetas(thetas)
        views = policy.network.unflatten(thetas[:, : policy.network.n_parameters])
        parameters = list(views.values())  # weight and bias of each layer in turn
        self._weights = [_laid_out(weight.transpose(1, 2)) for weight in parameters[::2]]
        self._biases = [bias[:, None] for bias in parameters[1::2]]
        self._std = thetas[:, None, policy.network.n_parameters :].exp()
        self._buffers = [torch.empty(len(thetas), rollouts, size) for size in policy.sizes[1:]]
        self._activate = ACTIVATIONS[policy.activation].in_place

    def act(self, observations: Tensor, noise: Tensor) -> Tensor:
        """Turn standard normals ``noise`` ``[tasks, rollouts, action_size]`` into actions, in place, and return them.

        Args:
            observations: ``[tasks, rollouts, observation_size]``.
            noise: what to turn.
        """
        x = observations
        for weight, bias, buffer in zip(self._weights, self._biases, self._buffers, strict=True):
            if x is not observations:
                self._activate(x)
            x = torch.baddbmm(bias, x, weight, out=buffer)
        return torch.addcmul(x, noise, self._std, out=noise)


def _laid_out(weights: Tensor) -> Tensor:
    """Return ``[tasks, n_in, n_out]`` as products read it: row by row a third faster, but twice by columns if few."""
    return weights.contiguous() if weights.shape[2] >= _FEW else weights.mT.contiguous().mT
