"""What the contenders built on ``torch.nn`` modules share."""

import torch
from torch import Tensor, nn

from benchmarks.problem import Problem, to_layers


def module_of(theta: Tensor, problem: Problem) -> nn.Module:
    """Return the network as a module with the parameters theta ``[n_parameters]``."""
    parts: list[nn.Module] = []
    for n_in, n_out in zip(problem.sizes[:-1], problem.sizes[1:], strict=True):
        parts += [nn.Linear(n_in, n_out), nn.ReLU()]
    module = nn.Sequential(*parts[:-1])
    with torch.no_grad():
        for parameter, value in zip(module.parameters(), to_layers(theta, problem), strict=True):
            parameter.copy_(value)
    return module
