"""Policy gradients as losses ``(theta, batch) -> scalar``, so that the one inner loop adapts policies too."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from metalib.locomotion.policy import GaussianPolicy
from metalib.locomotion.trajectories import Trajectories
from metalib.losses import Loss
from metalib.threads import side_by_side


class PolicyBatch(NamedTuple):
    """Steps of rollouts to learn from, of one task (with a leading axis: of several).

    Args:
        observations: ``[n, o]``, as the policy was shown them.
        actions: ``[n, a]``, as drawn.
        advantages: ``[n]``.
        log_probabilities: ``[n]``, of the actions under the policy that drew them.
        weights: ``[n]``, 1 / (number of steps) for a step and 0 for padding, which then changes nothing.
    """

    observations: Tensor
    actions: Tensor
    advantages: Tensor
    log_probabilities: Tensor
    weights: Tensor

    def of_task(self, task: int) -> "PolicyBatch":
        """Return one task of a batch of several, sharing memory."""
        return PolicyBatch(*(part[task] for part in self))

    def of_tasks(self, tasks: slice) -> "PolicyBatch":
        """Return some tasks of a batch of several, sharing memory."""
        return PolicyBatch(*(part[tasks] for part in self))


def likelihood_ratio(policy: GaussianPolicy) -> Loss:
    """Return ``L(theta) = -mean_t [pi_theta(a_t | o_t) / pi_old(a_t | o_t) A_t]``.

    pi_old drew the actions. Its gradient at pi_old is the policy gradient, and so is its derivative: the second-order
    term of the meta-gradient comes out right (Rothfuss et al. 2019, section 5; Foerster et al. 2018).
    """

    def loss(theta: Tensor, batch: PolicyBatch) -> Tensor:
        log_ratio = policy.log_probability(theta, batch.observations, batch.actions) - batch.log_probabilities
        return -(torch.exp(log_ratio) * batch.advantages * batch.weights).sum()

    return loss


def log_probability(policy: GaussianPolicy) -> Loss:
    """Return ``L(theta) = -mean_t [log pi_theta(a_t | o_t) A_t]``, as in the released code of Finn et al. (2017).

    The same gradient at the policy that acted, but a biased second-order term: its Hessian lacks
    ``grad log pi grad log pi^T``.
    """

    def loss(theta: Tensor, batch: PolicyBatch) -> Tensor:
        log_probabilities = policy.log_probability(theta, batch.observations, batch.actions)
        return -(log_probabilities * batch.advantages * batch.weights).sum()

    return loss


SURROGATES: dict[str, Callable[[GaussianPolicy], Loss]] = {
    "likelihood_ratio": likelihood_ratio,
    "log_probability": log_probability,
}
"""What an inner step lowers, by name."""


def divergence_between(old: tuple[Tensor, Tensor], new: tuple[Tensor, Tensor], weights: Tensor) -> Tensor:
    """Return the weighted sum over states of KL(old || new), a scalar.

    For Gaussians with diagonal covariance it is the sum over the action's parts of
    ``log(s_new / s_old) + (s_old^2 + (m_old - m_new)^2) / (2 s_new^2) - 1/2``.

    Args:
        old, new: means ``[n, a]`` and log standard deviations ``[a]``.
        weights: ``[n]``.
    """
    (old_mean, old_log_std), (new_mean, new_log_std) = old, new
    shift = (old_mean - new_mean) * torch.exp(-new_log_std)
    of_std = new_log_std - old_log_std + 0.5 * torch.exp(2 * (old_log_std - new_log_std)) - 0.5
    return ((0.5 * shift.square() + of_std).sum(dim=-1) * weights).sum()


def policy_batch(
    policy: GaussianPolicy, thetas: Tensor, found: Trajectories, advantages: Tensor, threads: int = 1
) -> PolicyBatch:
    """Return rollouts as batches ``[task, n, ...]``, n being the steps of the task that has most of them.

    Args:
        policy: which acted.
        thetas: its parameters ``[task, n_parameters]``.
        found: its rollouts.
        advantages: ``[task, rollout, time]``.
        threads: tasks are worked on side by side; results do not depend on it.
    """
    taken = found.mask.flatten(1)
    counts = taken.sum(dim=1, keepdim=True)
    n = max(int(counts.max()), 1)  # where every rollout broke at once, a step of padding
    # Steps first, in their order; padding after them.
    order = None if bool(taken.all()) else taken.int().argsort(dim=1, descending=True, stable=True)[:, :n]

    def rows(values: Tensor) -> Tensor:
        flat = values.flatten(1, 2)
        if order is None:
            return flat.contiguous()
        index = order if flat.ndim == 2 else order[..., None].expand(-1, -1, flat.shape[2])
        return flat.gather(1, index)

    observations, actions = rows(found.observations), rows(found.actions)
    weights = rows(found.mask).to(observations.dtype) / counts.clamp(min=1)

    @torch.no_grad()
    def old(task: int) -> Tensor:
        return policy.log_probability(thetas[task], observations[task], actions[task])

    # Task by task: a layer's output for one of them stays in the processor's cache.
    log_probabilities = torch.stack(side_by_side(old, range(len(thetas)), threads))
    return PolicyBatch(observations, actions, rows(advantages), log_probabilities, weights)


def thinned(batch: PolicyBatch, every: int) -> PolicyBatch:
    """Return about every ``every``-th step of each task's batch ``[task, n, ...]``, evenly spaced and without padding.

    Tasks with fewer steps repeat some, so that all keep the same number.
    """
    counts = (batch.weights > 0).sum(dim=1)
    m = -(-batch.weights.shape[1] // every)
    places = (torch.arange(m) * counts[:, None]) // m

    def rows(part: Tensor) -> Tensor:
        return part.gather(1, places if part.ndim == 2 else places[..., None].expand(-1, -1, part.shape[2]))

    return PolicyBatch(
        rows(batch.observations),
        rows(batch.actions),
        rows(batch.advantages),
        rows(batch.log_probabilities),
        batch.weights.new_full(places.shape, 1 / m),
    )
