"""higher (Grefenstette et al. 2019): ``innerloop_ctx`` for each task in turn, as in its own MAML example."""

from pathlib import Path

import higher
import torch
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
        adam = torch.optim.Adam(network.parameters(), lr=problem.outer_rate)
        inner = torch.optim.SGD(network.parameters(), lr=problem.inner_rate)
        (xs, ys), (query_xs, query_ys) = episodes
        for step in range(len(xs)):
            adam.zero_grad()
            for task in range(problem.tasks):
                with higher.innerloop_ctx(network, inner, copy_initial_weights=False) as (functional, optimiser):
                    for _ in range(problem.inner_steps):
                        optimiser.step(mse_loss(functional(xs[step, 0, task]), ys[step, 0, task]))
                    loss = mse_loss(functional(query_xs[step, 0, task]), query_ys[step, 0, task])
                    (loss / problem.tasks).backward()
            adam.step()
        return to_theta(list(network.parameters()))

    return run
