"""conv4 with PyTorch's own layers, and its meta-gradient by vmap and by a loop over tasks."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap
from torch.nn.functional import cross_entropy as torch_cross_entropy
from torch.utils._pytree import tree_map

from benchmarks.few_shot.problem import Problem
from metalib.losses import CrossEntropy
from metalib.meta_training.objectives import QueryLossAfterAdaptation
from metalib.networks import Network

MetaGradient = Callable[[Tensor, Any], tuple[Tensor, Tensor]]
"""``(phi [1, n], data of a meta-step) -> gradient [1, n], loss [1]``, phi and gradient in metalib's layout."""


class TorchBatchNorm(nn.Module):
    """``nn.BatchNorm2d`` on batch statistics, as a module that :class:`metalib.networks.Network` does not refuse.

    What it refuses is one gradient through vmap, which nothing here takes.
    """

    def __init__(self, filters: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(filters))
        self.bias = nn.Parameter(torch.zeros(filters))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` ``[n, filters, height, width]`` normalised over all but its filters."""
        return nn.functional.batch_norm(x, None, None, self.weight, self.bias, training=True)


class TorchConv4(nn.Module):
    """Four blocks of ``nn.Conv2d`` with stride 2, PyTorch's batch normalisation and ReLU; a linear layer.

    Parameters come in the order of those of :class:`metalib.networks.Conv4`.
    """

    def __init__(self, filters: int, n_outputs: int) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        for n_in in (1, filters, filters, filters):
            blocks.append(nn.Conv2d(n_in, filters, 3, stride=2, padding=1, bias=False))
            blocks += [TorchBatchNorm(filters), nn.ReLU()]
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(filters, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``[n, n_outputs]`` for images ``[n, 1, height, width]``."""
        logits: Tensor = self.head(self.blocks(x).mean((2, 3)))
        return logits


def torch_order(problem: Problem) -> Tensor:
    """Return where each number of PyTorch's layout lies in metalib's: ``theta[order]`` is PyTorch's theta."""
    network = problem.architecture.network()
    parts = network.unflatten(torch.arange(network.n_parameters))
    return torch.cat([(_kernel(part) if _is_convolution(name) else part).reshape(-1) for name, part in parts.items()])


def _is_convolution(name: str) -> bool:
    return name.startswith("block") and name.count(".") == 1


def _kernel(weight: Tensor) -> Tensor:
    """Return a block's weight ``[9 * n_in, n_out]`` as a kernel ``[n_out, n_in, 3, 3]``."""
    return weight.reshape(3, 3, -1, weight.shape[1]).permute(3, 2, 0, 1)


def by_vmap(problem: Problem) -> MetaGradient:
    """Return the meta-gradient by ``vmap`` of each task's gradient; it makes grouped convolutions of PyTorch's.

    Not by one gradient through vmap, as metalib's own: there PyTorch 2.13 gives wrong second derivatives of its batch
    normalisation, whose saved statistics it takes for constants.
    """
    network, order = Network(_module(problem)), torch_order(problem)
    objective = QueryLossAfterAdaptation(CrossEntropy(network), problem.rule, problem.inner_steps)

    each_task = vmap(grad_and_value(objective), in_dims=(None, 0))

    def gradient(phi: Tensor, data: Any) -> tuple[Tensor, Tensor]:
        found, losses = each_task(phi[0, order], tree_map(lambda leaf: leaf[0], data))
        return _in_our_layout(found.mean(0, keepdim=True), order), losses.mean(0, keepdim=True)

    return gradient


def by_loop(problem: Problem) -> MetaGradient:
    """Return the meta-gradient by ``torch.autograd.grad`` with ``create_graph``, for each task in turn."""
    module, order = _module(problem), torch_order(problem)
    network = Network(module)

    def loss(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return torch_cross_entropy(functional_call(module, parameters, (x,)), y)

    def adapted(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> dict[str, Tensor]:
        for _ in range(problem.inner_steps):
            gradients = torch.autograd.grad(loss(parameters, x, y), list(parameters.values()), create_graph=True)
            pairs = zip(parameters.items(), gradients, strict=True)
            parameters = {name: value - problem.inner_rate * part for (name, value), part in pairs}
        return parameters

    def gradient(phi: Tensor, data: Any) -> tuple[Tensor, Tensor]:
        parts = network.unflatten(phi[0, order]).items()
        parameters = {name: part.detach().clone().requires_grad_() for name, part in parts}
        losses = phi.new_zeros(1)
        for task in range(problem.tasks):
            support, query = tree_map(lambda leaf, task=task: leaf[0, task], data)
            query_loss = loss(adapted(parameters, *support), *query) / problem.tasks
            query_loss.backward()
            losses += query_loss.detach()
        found = network.flatten({name: _gradient_of(leaf) for name, leaf in parameters.items()})
        return _in_our_layout(found[None], order), losses

    return gradient


def _gradient_of(leaf: Tensor) -> Tensor:
    assert leaf.grad is not None
    return leaf.grad


def _module(problem: Problem) -> TorchConv4:
    with torch.device("meta"):
        return TorchConv4(problem.width, problem.ways)


def _in_our_layout(gradient: Tensor, order: Tensor) -> Tensor:
    result = torch.empty_like(gradient)
    result[:, order] = gradient
    return result
