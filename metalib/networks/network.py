"""Networks as pure functions of one flat parameter vector, ``(theta, x) -> y``."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

_OWN_BATCH_NORM = "metalib.networks.images.BatchNormalisation, channels last"
_INSTEAD: dict[type[nn.Module], str] = {
    nn.modules.batchnorm._BatchNorm: _OWN_BATCH_NORM,
    nn.modules.instancenorm._InstanceNorm: "GroupNorm with as many groups as channels",
    nn.LayerNorm: "GroupNorm with one group",
}
"""Layers of torch whose second derivatives are wrong under vmap, and what to use in their place."""


@dataclass(frozen=True)
class View:
    """Where one named parameter lies inside theta."""

    name: str
    shape: torch.Size
    start: int
    stop: int


class Network:
    """A module without buffers or randomness, as a pure function ``(theta, x) -> y``.

    All parameters live in one flat vector theta of shape ``[n_parameters]``; a layout of named views
    says where. An update rule then is plain vector arithmetic (``theta - rate * gradient``) and an
    optimiser is one fused operation. Call it under ``torch.func.vmap`` for a batch of thetas.

    Args:
        module: the architecture; its own parameter values are not used.

    Raises:
        ValueError: the module has buffers (running statistics) or dropout, so that it is not a function
            of ``(theta, x)`` alone; it has one of torch's layers for batch, instance or layer normalisation,
            whose second derivatives are wrong under vmap; or it has no parameters.
    """

    def __init__(self, module: nn.Module) -> None:
        _refuse_hidden_state(module)
        _refuse_wrong_derivatives(module)
        self._module = module
        self.layout: tuple[View, ...] = _layout(module)
        self.n_parameters: int = self.layout[-1].stop

    def __call__(self, theta: Tensor, x: Tensor) -> Tensor:
        """Return the output for inputs ``x`` ``[n, ...]`` under parameters ``theta`` ``[n_parameters]``."""
        y: Tensor = functional_call(self._module, self.unflatten(theta), (x,))
        return y

    def unflatten(self, theta: Tensor) -> dict[str, Tensor]:
        """Return the named parameters as views into ``theta`` ``[..., n_parameters]``."""
        # One split, not a slice each: its derivative is one concatenation instead of padded sums.
        pieces = theta.split([view.stop - view.start for view in self.layout], dim=-1)
        leading = theta.shape[:-1]
        return {v.name: p.reshape(*leading, *v.shape) for v, p in zip(self.layout, pieces, strict=True)}

    def flatten(self, parameters: dict[str, Tensor]) -> Tensor:
        """Return theta ``[n_parameters]`` made of named parameters; the inverse of :meth:`unflatten`."""
        return torch.cat([parameters[v.name].reshape(-1) for v in self.layout])


def _refuse_hidden_state(module: nn.Module) -> None:
    for name, part in module.named_modules():
        label = _label(name, part)
        if _draws_random_numbers(part):
            raise ValueError(
                f"{label} draws random numbers, so the network is not a function of (theta, x); remove it, or set "
                "its dropout to 0"
            )
        if next(part.buffers(recurse=False), None) is not None:
            raise ValueError(
                f"{label} keeps buffers (running statistics), so the network is not a function of "
                f"(theta, x) and one task would leak into the next; use batch statistics only: {_OWN_BATCH_NORM}"
            )


def _draws_random_numbers(part: nn.Module) -> bool:
    if isinstance(part, nn.modules.dropout._DropoutNd):
        return part.p > 0
    if isinstance(part, nn.MultiheadAttention | nn.RNNBase):
        return part.dropout > 0
    return isinstance(part, nn.RReLU | nn.FractionalMaxPool2d | nn.FractionalMaxPool3d)


def _refuse_wrong_derivatives(module: nn.Module) -> None:
    # Nothing fails there: PyTorch 2.13 gives a plausible, wrong meta-gradient, which training would follow.
    for name, part in module.named_modules():
        for kind, instead in _INSTEAD.items():
            if isinstance(part, kind):
                raise ValueError(
                    f"{_label(name, part)} has wrong second derivatives in PyTorch where torch.autograd.grad "
                    f"differentiates vmap(torch.func.grad), as meta-training does; use {instead}"
                )


def _label(name: str, part: nn.Module) -> str:
    return f"{type(part).__name__} {name!r}" if name else type(part).__name__


def _layout(module: nn.Module) -> tuple[View, ...]:
    views: list[View] = []
    start = 0
    for name, parameter in module.named_parameters():
        stop = start + parameter.numel()
        views.append(View(name, parameter.shape, start, stop))
        start = stop
    if not views:
        raise ValueError(f"{type(module).__name__} has no parameters, so there is nothing to learn")
    return tuple(views)
