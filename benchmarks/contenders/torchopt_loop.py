"""TorchOpt (Ren et al. 2023): ``MetaSGD`` for each task in turn, as in its own MAML example."""

from pathlib import Path

import torch
import torchopt
from torch import Tensor
from torch.nn.functional import mse_loss

from benchmarks.contenders.catalogue import Run
from benchmarks.contenders.modules import module_of
from benchmarks.problem import Problem, to_theta
from metalib.losses import Episode


def prepare(problem: Problem, theta: Tensor, episodes: Episode, folder: Path) -> Run:
    """Return the loop; nothing is compiled."""

    def run(theta: Tensor, episodes: Episode) -> Tensor:
        network = module_of(theta[0], problem)
        parameters: list[Tensor] = list(network.parameters())
        adam = torch.optim.Adam(parameters, lr=problem.outer_rate)
        inner = torchopt.MetaSGD(network, lr=problem.inner_rate)
        (xs, ys), (query_xs, query_ys) = episodes
        for step in range(len(xs)):
            start = torchopt.extract_state_dict(network, by="reference")
            inner_start = torchopt.extract_state_dict(inner, by="reference")
            losses = []
            for task in range(problem.tasks):
                for _ in range(problem.inner_steps):
                    inner.step(mse_loss(network(xs[step, 0, task]), ys[step, 0, task]))
                losses.append(mse_loss(network(query_xs[step, 0, task]), query_ys[step, 0, task]))
                torchopt.recover_state_dict(network, start)
                torchopt.recover_state_dict(inner, inner_start)
            adam.zero_grad()
            torch.stack(losses).mean().backward()
            adam.step()
        return to_theta(parameters)

    return run
