"""Networks for few-shot images: four convolutions, or fully connected; batch statistics only."""

import math
from collections import OrderedDict
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn

from metalib.networks.architecture import Architecture
from metalib.networks.mlp import truncated_normal
from metalib.networks.network import Network, View

Downsample = Literal["stride", "max_pool"]
EPSILON = 1e-5
"""Added to variances in batch normalisation."""


class BatchNormalisation(nn.Module):
    """Normalise each channel (the last axis) by mean and variance over all others, then scale and shift it.

    The statistics are those of the batch at hand, in training and at test, so that no episode leaks into another; the
    predictions for a query set then depend on the whole set (they are transductive).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels))
        self.bias = nn.Parameter(torch.empty(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised ``x`` ``[n, ..., channels]``."""
        axes = tuple(range(x.ndim - 1))
        centred = x - x.mean(axes)
        scale = self.weight * torch.rsqrt((centred * centred).mean(axes) + EPSILON)
        return centred * scale + self.bias


class ConvolutionBlock(nn.Module):
    """3 x 3 convolution, batch normalisation, ReLU, and 2 x 2 max pooling unless the convolution has stride 2."""

    def __init__(self, n_in: int, n_out: int, downsample: Downsample) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(9 * n_in, n_out))
        self.normalisation = BatchNormalisation(n_out)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[n, height / 2, width / 2, n_out]`` for ``x`` ``[n, height, width, n_in]``."""
        if self.downsample == "stride":
            return torch.relu(self.normalisation(patches(x, stride=2) @ self.weight))
        # Pooling before ReLU: the same, for fewer numbers.
        return torch.relu(_max_pool(self.normalisation(patches(x, stride=1) @ self.weight)))


def patches(x: Tensor, stride: int) -> Tensor:
    """Return the 3 x 3 neighbourhood of every ``stride``-th pixel, zero outside, ``[n, h, w, 9 * channels]``.

    A convolution then is one matrix product, which vmap over tasks with parameters of their own makes a batched
    product; a convolution it would make a grouped one, which PyTorch's compiler leaves to the library, unfused.
    """
    result: Tensor = _Patches.apply(x, stride)
    return result


class _Patches(torch.autograd.Function):
    """x ``[n, height, width, channels]`` to its patches; linear, with :class:`_Fold` as its adjoint.

    Autograd's own derivative would fill an image with zeros for each of the nine neighbours.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, stride: int) -> Tensor:
        height, width = (math.ceil(size / stride) for size in x.shape[1:3])
        padded = torch.nn.functional.pad(x, (0, 0, 1, 1, 1, 1))
        rows = [slice(i, i + stride * (height - 1) + 1, stride) for i in range(3)]
        columns = [slice(j, j + stride * (width - 1) + 1, stride) for j in range(3)]
        return torch.cat([padded[:, row, column] for row in rows for column in columns], dim=-1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int], output: Tensor) -> None:
        x, ctx.stride = inputs
        ctx.size = tuple(x.shape[1:3])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _Fold.apply(gradient, ctx.stride, ctx.size), None


class _Fold(torch.autograd.Function):
    """Patches back to an image of ``size``: each pixel the sum of its copies; the adjoint of :class:`_Patches`."""

    generate_vmap_rule = True

    @staticmethod
    def forward(patches: Tensor, stride: int, size: tuple[int, int]) -> Tensor:
        n, height, width, channels = patches.shape
        nine = patches.reshape(n, height, width, 3, 3, channels // 9)
        rows = _overlap_add(nine.movedim(3, 2), stride, size[0])
        image = _overlap_add(rows.flatten(0, 1), stride, size[1])
        return image.reshape(n, *size, channels // 9)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int, tuple[int, int]], output: Tensor) -> None:
        _, ctx.stride, _ = inputs

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _Patches.apply(gradient, ctx.stride), None, None


def _overlap_add(parts: Tensor, stride: int, size: int) -> Tensor:
    """Return the sums s, ``s[stride * o + i - 1] += parts[o, i]``, over axes 1 (o) and 2 (i = 0, 1, 2) of ``parts``."""
    left, middle, right = parts.unbind(2)
    if stride == 1:
        zero = torch.zeros_like(left[:, :1])
        return torch.cat([left[:, 1:], zero], 1) + middle + torch.cat([zero, right[:, :-1]], 1)
    # stride 2: the middle copies make the even pixels, left and right ones meet on the odd pixels.
    odd = torch.cat([left[:, 1:], torch.zeros_like(left[:, :1])], 1) + right
    return torch.stack([middle, odd], 2).flatten(1, 2)[:, :size]


def _max_pool(x: Tensor) -> Tensor:
    """Return the largest of every 2 x 2 pixels; an odd row or column at the end is left out."""
    height, width = x.shape[1] // 2, x.shape[2] // 2
    x = x[:, : 2 * height, : 2 * width]
    return x.reshape(x.shape[0], height, 2, width, 2, x.shape[-1]).amax((2, 4))


class _Pixels(nn.Module):
    """Bytes to numbers in [0, 1]; numbers stay as they are."""

    def forward(self, x: Tensor) -> Tensor:
        return x.to(torch.float32) / 255 if x.dtype == torch.uint8 else x


class _ChannelsLast(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.movedim(1, -1)


class _MeanOverPixels(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((1, 2))


@dataclass(frozen=True)
class Conv4:
    """Four convolution blocks and a linear layer, the network of few-shot image papers.

    With stride 2 it is the Omniglot network of Finn et al. (2017), 5.2, whose last feature map is averaged over its
    pixels; with max pooling the miniImageNet one of Ravi and Larochelle (2017), whose last feature map is flattened.

    Args:
        input_shape: channels, height, width.
        filters: of every block.
        n_outputs: of the linear layer; 0 leaves it out, so that the features are the output.
        downsample: "stride" or "max_pool".
    """

    input_shape: tuple[int, int, int]
    filters: int
    n_outputs: int
    downsample: Downsample = "stride"

    def __post_init__(self) -> None:
        if self.filters < 1 or self.n_outputs < 0 or min(self.input_shape) < 1:
            raise ValueError(f"sizes must be 1 or more (outputs 0 or more), got {self}")
        if self.downsample == "max_pool" and min(self.input_shape[1:]) < 16:
            raise ValueError(f"four max pools need 16 x 16 pixels or more, got {self.input_shape}")

    @property
    def n_features(self) -> int:
        """The number of features that the linear layer sees."""
        if self.downsample == "stride":
            return self.filters
        return self.filters * math.prod(size // 16 for size in self.input_shape[1:])

    def network(self) -> Network:
        """Return ``(theta, x) -> logits``, ``x`` bytes or numbers in [0, 1], ``[n, channels, height, width]``."""
        with torch.device("meta"):
            parts: dict[str, nn.Module] = {"pixels": _Pixels(), "channels_last": _ChannelsLast()}
            for number in range(1, 5):
                n_in = self.input_shape[0] if number == 1 else self.filters
                parts[f"block{number}"] = ConvolutionBlock(n_in, self.filters, self.downsample)
            parts["features"] = _MeanOverPixels() if self.downsample == "stride" else nn.Flatten()
            if self.n_outputs:
                parts["head"] = nn.Linear(self.n_features, self.n_outputs)
            return Network(nn.Sequential(OrderedDict(parts)))

    def initial_theta(self, generator: torch.Generator, std: float) -> Tensor:
        """Draw theta: convolutions uniform after Glorot and Bengio (2010), the linear layer truncated normal.

        Args:
            generator: of the numbers.
            std: standard deviation of the linear layer's weights. Biases are 0, scales 1.
        """
        return torch.cat([_initial_values(view, generator, std) for view in self.network().layout])

    def to_dict(self) -> dict[str, Any]:
        """Return the description as plain data; the inverse of :func:`metalib.networks.from_dict`."""
        return {"kind": "conv4", **asdict(self), "input_shape": list(self.input_shape)}


@dataclass(frozen=True)
class FullyConnected:
    """Fully connected with batch normalisation: Finn et al. (2017), 5.2, "MAML, no conv" has 256, 128, 64, 64 units.

    Args:
        input_shape: channels, height, width; flattened.
        hidden: units of each hidden layer.
        n_outputs: of the last layer; 0 leaves it out, so that the features are the output.
    """

    input_shape: tuple[int, int, int]
    hidden: tuple[int, ...]
    n_outputs: int

    def __post_init__(self) -> None:
        if not self.hidden or min(*self.hidden, *self.input_shape) < 1 or self.n_outputs < 0:
            raise ValueError(f"sizes must be 1 or more (outputs 0 or more), one hidden layer at least, got {self}")

    def network(self) -> Network:
        """Return ``(theta, x) -> logits``, ``x`` bytes or numbers in [0, 1], ``[n, channels, height, width]``."""
        parts: dict[str, nn.Module] = {"pixels": _Pixels(), "flat": nn.Flatten()}
        sizes = (math.prod(self.input_shape), *self.hidden)
        with torch.device("meta"):
            for number, (n_in, n_out) in enumerate(pairwise(sizes), start=1):
                # Without bias: the normalisation would take it away again.
                parts[f"layer{number}"] = nn.Linear(n_in, n_out, bias=False)
                parts[f"normalisation{number}"] = BatchNormalisation(n_out)
                parts[f"relu{number}"] = nn.ReLU()
            if self.n_outputs:
                parts["head"] = nn.Linear(sizes[-1], self.n_outputs)
        return Network(nn.Sequential(OrderedDict(parts)))

    def initial_theta(self, generator: torch.Generator, std: float) -> Tensor:
        """Draw theta: weights truncated normal at two ``std``, biases 0, scales 1."""
        return torch.cat([_initial_values(view, generator, std) for view in self.network().layout])

    def to_dict(self) -> dict[str, Any]:
        """Return the description as plain data; the inverse of :func:`metalib.networks.from_dict`."""
        return {
            "kind": "fully_connected",
            "input_shape": list(self.input_shape),
            "hidden": list(self.hidden),
            "n_outputs": self.n_outputs,
        }


def with_new_head(theta: Tensor, old: Architecture, new: Architecture) -> Tensor:
    """Return parameters of ``new`` ``[..., n]``: those of ``old``, of the same kind and sizes, but for a head of zeros.

    Raises:
        ValueError: the two differ in more than the head.
    """
    parameters, parts = old.network().unflatten(theta), []
    for view in new.network().layout:
        if view.name.startswith("head."):
            parts.append(theta.new_zeros(*theta.shape[:-1], view.shape.numel()))
        elif view.name in parameters and parameters[view.name].shape[theta.ndim - 1 :] == view.shape:
            parts.append(parameters[view.name].flatten(theta.ndim - 1))
        else:
            raise ValueError(f"{view.name} {list(view.shape)} is not in the old network, {old}")
    return torch.cat(parts, dim=-1)


def _initial_values(view: View, generator: torch.Generator, std: float) -> Tensor:
    """Draw one parameter: biases 0, scales 1, convolutions by Glorot's rule, the rest truncated normal."""
    n = view.shape.numel()
    if view.name.endswith("bias"):
        return torch.zeros(n)
    if len(view.shape) == 1:
        return torch.ones(n)
    if view.name.startswith("block"):
        fan_in, fan_out = view.shape[0], 9 * view.shape[1]
        limit = math.sqrt(6 / (fan_in + fan_out))
        return (2 * torch.rand(n, generator=generator) - 1) * limit
    return truncated_normal(n, generator) * std
