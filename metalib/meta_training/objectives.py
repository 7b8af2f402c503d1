"""What an outer loop minimises: a scalar of the meta-parameters phi and the data of one task."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from metalib.adaptation import adapt
from metalib.losses import Batch, Episode, Loss, MinibatchEpisode
from metalib.meta_parameters import split
from metalib.update_rules.protocol import UpdateRule

Objective = Callable[[Tensor, Any], Tensor]
"""``(phi [n_phi], data of one task) -> scalar``; pure, so that vmap and grad apply."""


@dataclass(frozen=True)
class QueryLossAfterAdaptation:
    """The meta-learning objective, the query loss at theta_T (Finn et al. 2017, equation 1).

    Args:
        loss: the task's loss.
        rule: the update rule of the inner loop.
        inner_steps: T, the inner steps; on the whole support or, with a MinibatchEpisode, on parts of it.
        learned_start: False keeps theta_0 (the LSTM meta-learner's c_0) as it was drawn and learns omega alone.
    """

    loss: Loss
    rule: UpdateRule
    inner_steps: int
    learned_start: bool = True

    def __call__(self, phi: Tensor, episode: Episode | MinibatchEpisode) -> Tensor:
        """Return the query loss of one task; ``phi`` ``[n_phi]``."""
        theta, omega = split(phi, self.rule)
        theta = theta if self.learned_start else theta.detach()
        adapted = adapt(self.loss, self.rule, omega, theta, episode.inner_batches(self.inner_steps))[-1]
        return self.loss(adapted, episode.query)


@dataclass(frozen=True)
class LossWithoutAdaptation:
    """The loss at theta_0 itself: training over all tasks at once (pretrained, oracle)."""

    loss: Loss

    def __call__(self, phi: Tensor, batch: Batch) -> Tensor:
        """Return the loss of one task; ``phi`` is theta_0, ``[n_parameters]``."""
        return self.loss(phi, batch)
