"""What an outer loop minimises: a scalar of the meta-parameters phi and the data of one task."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from metalib.adaptation import adapt
from metalib.losses import Batch, Episode, Loss, MinibatchEpisode
from metalib.meta_parameters import split
from metalib.update_rules.protocol import UpdateRule

Objective = Callable[[Tensor, Any], Tensor]
"""``(phi [n_phi], data of one task) -> scalar``; pure, so that vmap and grad apply."""


def query_loss_after_adaptation(
    loss: Loss, rule: UpdateRule, inner_steps: int, learned_start: bool = True
) -> Objective:
    """Return the meta-learning objective, the query loss at theta_T (Finn et al. 2017, equation 1).

    Args:
        loss: the task's loss.
        rule: the update rule of the inner loop.
        inner_steps: T, the inner steps; on the whole support or, with a MinibatchEpisode, on parts of it.
        learned_start: False keeps theta_0 (the LSTM meta-learner's c_0) as it was drawn and learns omega alone.
    """

    def objective(phi: Tensor, episode: Episode | MinibatchEpisode) -> Tensor:
        theta, omega = split(phi, rule)
        theta = theta if learned_start else theta.detach()
        adapted = adapt(loss, rule, omega, theta, episode.inner_batches(inner_steps))[-1]
        return loss(adapted, episode.query)

    return objective


def loss_without_adaptation(loss: Loss) -> Objective:
    """Return the loss at theta_0 itself: training over all tasks at once (pretrained, oracle)."""

    def objective(phi: Tensor, batch: Batch) -> Tensor:
        return loss(phi, batch)

    return objective
