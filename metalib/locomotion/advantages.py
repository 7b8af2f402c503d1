"""Returns and advantages of rollouts."""

from typing import NamedTuple

import torch
from torch import Tensor

from metalib.locomotion.trajectories import Trajectories
from metalib.locomotion.value_baseline import Fit, fit_values
from metalib.threads import side_by_side

_SMALL = 1e-8


class Advantages(NamedTuple):
    """Advantages ``values`` ``[task, rollout, time]``; ``singular`` ``[task]``, whose baseline fit needed help."""

    values: Tensor
    singular: Tensor


def discounted_sums(steps: Tensor, discount: float) -> Tensor:
    """Return ``y_t = sum_k discount^k x_{t+k}`` for ``steps`` x ``[..., time]``."""
    sums = torch.empty_like(steps)
    running = torch.zeros_like(steps[..., 0])
    for time in reversed(range(steps.shape[-1])):
        running = steps[..., time] + discount * running
        sums[..., time] = running
    return sums


def generalised_advantages(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> Tensor:
    """Return the advantages of Schulman et al. (2016), equation 16: ``A_t = sum_k (gamma lam)^k delta_{t+k}``.

    ``delta_t = r_t + gamma V(o_{t+1}) - V(o_t)``, where the value after a rollout's last step is 0, be it a fall or
    the time limit: the horizon is finite and the baseline knows the time, so nothing follows the limit. (The
    released code of Finn et al. 2017 does the same; an infinite-horizon method would have to continue with the value
    of the last observation.)

    Args:
        rewards, values, mask: ``[..., time]``; ``values`` are V(o_t), and rewards and values are 0 off the mask.
        gamma: discount.
        lam: lambda, 1 for returns minus values.

    Returns:
        ``[..., time]``, 0 off the mask.
    """
    following = torch.zeros_like(values)
    following[..., :-1] = values[..., 1:] * mask[..., 1:]
    deltas = (rewards + gamma * following - values) * mask
    return discounted_sums(deltas, gamma * lam) * mask


def estimate_advantages(found: Trajectories, gamma: float, lam: float, threads: int = 1) -> Advantages:
    """Return the advantages of rollouts, standardised for each task to mean 0 and standard deviation 1.

    The baseline is fitted to the very rollouts it judges, as in the released code; each task has its own.

    Args:
        found: rollouts of several tasks.
        gamma: discount.
        lam: of :func:`generalised_advantages`.
        threads: tasks are fitted side by side; results do not depend on it.
    """
    tasks = [slice(task, task + 1) for task in range(len(found.rewards))]
    # Sums over time are loops of small operations: all tasks at once. Sums over a task's steps: each task alone.
    rewards = found.rewards.double()
    targets = discounted_sums(rewards, gamma)

    def fit(task: slice) -> Fit:
        return fit_values(found.observations[task], targets[task], found.mask[task])

    fits = side_by_side(fit, tasks, threads)
    values = torch.cat([each.values for each in fits])
    advantages = generalised_advantages(rewards, values, found.mask, gamma, lam)
    scaled = torch.cat([standardised(advantages[task], found.mask[task]) for task in tasks])
    return Advantages(scaled.to(found.rewards.dtype), torch.cat([each.singular for each in fits]))


def standardised(values: Tensor, mask: Tensor) -> Tensor:
    """Return ``values`` ``[task, rollout, time]`` with mean 0 and standard deviation 1 over each task's mask."""
    n = mask.sum(dim=(1, 2), keepdim=True).clamp(min=1)
    centred = (values - (values * mask).sum(dim=(1, 2), keepdim=True) / n) * mask
    spread = (centred.square().sum(dim=(1, 2), keepdim=True) / n).sqrt()
    return centred / (spread + _SMALL)
