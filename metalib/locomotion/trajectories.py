"""What rollouts leave behind."""

from typing import NamedTuple

import torch
from torch import Tensor


class Trajectories(NamedTuple):
    """Rollouts of several tasks. Entries from a rollout's end on are zeros, and False in ``mask``.

    Tensors are views: in memory time comes first. Who reads them task by task many times makes them contiguous first.

    Args:
        observations: ``[task, rollout, time, observation_size]`` before each action.
        actions: ``[task, rollout, time, action_size]`` as drawn; bodies take them clipped.
        rewards: ``[task, rollout, time]``.
        mask: ``[task, rollout, time]`` bool, the steps that were taken.
        ended: ``[task, rollout]`` bool, rollouts that fell (or arrived), at the horizon or before.
        non_finite: ``[task, rollout]`` bool, rollouts whose state or action was no longer finite; the step that made
            it so is not part of the rollout.
    """

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    mask: Tensor
    ended: Tensor
    non_finite: Tensor

    @property
    def returns(self) -> Tensor:
        """Undiscounted sums of rewards ``[task, rollout]``, summed in float64."""
        return self.rewards.sum(dim=-1, dtype=torch.float64)

    @property
    def mean_returns(self) -> Tensor:
        """The mean return of each task's rollouts that stayed finite, ``[task]``; NaN where none did.

        A rollout that broke down is cut short, which would count in its favour where rewards are negative.
        """
        sound = ~self.non_finite
        return (self.returns * sound).sum(dim=-1) / sound.sum(dim=-1)

    def mean_return(self) -> float:
        """Return the mean return of all rollouts that stayed finite; NaN if none did."""
        sound = ~self.non_finite
        return ((self.returns * sound).sum() / sound.sum()).item()

    @property
    def broken(self) -> Tensor:
        """Tasks of which a rollout did not stay finite, ``[task]`` bool: such a policy is not chosen."""
        return self.non_finite.any(dim=-1)

    @property
    def lengths(self) -> Tensor:
        """The number of steps of every rollout, ``[task, rollout]``."""
        return self.mask.sum(dim=-1)

    @classmethod
    def empty(cls, tasks: int, rollouts: int, horizon: int, observation_size: int, action_size: int) -> "Trajectories":
        """Return room for rollouts of ``horizon`` steps; its content is undefined but for mask and ends (False)."""
        # In memory time comes first: what a step writes then lies together, which is worth several per cent.
        shape = (horizon, tasks, rollouts)
        return cls(
            torch.empty(*shape, observation_size).permute(1, 2, 0, 3),
            torch.empty(*shape, action_size).permute(1, 2, 0, 3),
            torch.empty(shape).permute(1, 2, 0),
            torch.zeros(shape, dtype=torch.bool).permute(1, 2, 0),
            torch.zeros(shape[1:], dtype=torch.bool),
            torch.zeros(shape[1:], dtype=torch.bool),
        )

    def of_tasks(self, first: int, last: int) -> "Trajectories":
        """Return the tasks ``first`` to ``last`` (exclusive), sharing memory."""
        return Trajectories(*(part[first:last] for part in self))

    def clear_padding(self) -> None:
        """Put zeros wherever ``mask`` is False, in place."""
        if bool(self.mask.all()):
            return
        padding = ~self.mask
        self.rewards.masked_fill_(padding, 0.0)
        self.observations.masked_fill_(padding[..., None], 0.0)
        self.actions.masked_fill_(padding[..., None], 0.0)
