"""Plain PyTorch: ``torch.autograd.grad`` with ``create_graph`` for each task in turn, ``torch.optim.Adam``."""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import linear, mse_loss, relu

from benchmarks.contenders.catalogue import Run
from benchmarks.problem import Problem, to_layers, to_theta
from metalib.losses import Episode


def forward(layers: list[Tensor], x: Tensor) -> Tensor:
    """Return the network's output for ``x`` ``[n, 1]``; ``layers`` holds weights and biases in turn."""
    for index in range(0, len(layers) - 2, 2):
        x = relu(linear(x, layers[index], layers[index + 1]))
    return linear(x, layers[-2], layers[-1])


def adapted(layers: list[Tensor], x: Tensor, y: Tensor, problem: Problem) -> list[Tensor]:
    """Return the layers after the inner steps, differentiable with respect to ``layers``."""
    for _ in range(problem.inner_steps):
        gradients = torch.autograd.grad(mse_loss(forward(layers, x), y), layers, create_graph=True)
        layers = [layer - problem.inner_rate * part for layer, part in zip(layers, gradients, strict=True)]
    return layers


def prepare(problem: Problem, theta: Tensor, episodes: Episode, folder: Path) -> Run:
    """Return the loop; nothing is compiled."""

    def run(theta: Tensor, episodes: Episode) -> Tensor:
        layers = [layer.requires_grad_() for layer in to_layers(theta[0], problem)]
        adam = torch.optim.Adam(layers, lr=problem.outer_rate)
        (xs, ys), (query_xs, query_ys) = episodes
        for step in range(len(xs)):
            losses = []
            for task in range(problem.tasks):
                moved = adapted(layers, xs[step, 0, task], ys[step, 0, task], problem)
                losses.append(mse_loss(forward(moved, query_xs[step, 0, task]), query_ys[step, 0, task]))
            adam.zero_grad()
            torch.stack(losses).mean().backward()
            adam.step()
        return to_theta(layers)

    return run
