"""Policies after adaptation, recomputed from records of what they did: the objective of meta-RL.

A simulation cannot be differentiated, so acting and learning are apart (collect, then replay): rollouts are collected
with theta_0, ..., theta_T, and the inner loop then repeats the same iterates on the records, differentiably.
"""

from collections.abc import Sequence
from functools import cached_property, partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import vmap

from metalib.adaptation import adapt
from metalib.locomotion.policy import GaussianPolicy
from metalib.locomotion.surrogate import PolicyBatch, divergence_between, thinned
from metalib.losses import Loss
from metalib.meta_parameters import split
from metalib.meta_training.trust_region import Product
from metalib.threads import side_by_side
from metalib.update_rules.protocol import UpdateRule

_TASKS_A_BLOCK = 5
"""Tasks whose curvature is computed together; fixed, so that results do not depend on the number of threads."""


class Records(NamedTuple):
    """What several tasks' learners lived through.

    Args:
        batches: of each iterate theta_0, ..., theta_T, ``[task, n, ...]``: the first T to adapt on, the last to be
            judged by.
        thetas: theta_T of each task, ``[task, n_parameters]``, which made the last batch.
    """

    batches: tuple[PolicyBatch, ...]
    thetas: Tensor


class AdaptedPolicies:
    """The loss of policies after adaptation, as a function of phi = (theta_0, omega).

    ``L(phi) = mean over tasks of L_last(theta_T(phi))``, where theta_T(phi) are T inner steps of the rule on the
    records (Finn et al. 2017, algorithm 3); no inner step makes it the plain policy gradient. The divergence is
    ``mean over tasks and states of KL(pi_theta_T(old phi) || pi_theta_T(phi))``, its curvature
    ``J^T F J`` with F the Fisher matrix of the adapted policies and J the derivative of theta_T: both are
    products with vectors only, and none is larger than the records.

    Args:
        policy: of every task.
        rule: how it adapts.
        loss: what adaptation lowers, of :data:`metalib.locomotion.surrogate.SURROGATES`.
        judge: what the adapted policy is judged by.
        records: of the tasks.
        thin: the curvature is taken on every ``thin``-th state; losses and divergence on all.
        threads: tasks are worked on side by side; results do not depend on it.
    """

    def __init__(
        self,
        policy: GaussianPolicy,
        rule: UpdateRule,
        loss: Loss,
        judge: Loss,
        records: Records,
        thin: int = 1,
        threads: int = 1,
    ) -> None:
        self._policy, self._rule, self._loss, self._judge = policy, rule, loss, judge
        self._records, self._thin, self._threads = records, thin, threads

    @property
    def n_tasks(self) -> int:
        """How many tasks the records are of."""
        return len(self._records.thetas)

    def gradient(self, phi: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`metalib.meta_training.trust_region.Problem`."""

        def of_task(task: int) -> tuple[Tensor, Tensor]:
            at = phi.detach().requires_grad_()
            *support, last = (batch.of_task(task) for batch in self._records.batches)
            loss = self._judge(self._adapted(at, support), last)
            (gradient,) = torch.autograd.grad(loss, at)
            return loss.detach(), gradient

        losses, gradients = zip(*side_by_side(of_task, range(self.n_tasks), self._threads), strict=True)
        return torch.stack(losses).mean(), torch.stack(gradients).mean(dim=0)

    def evaluate(self, phi: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`metalib.meta_training.trust_region.Problem`."""
        old = self._old_distributions

        @torch.no_grad()
        def of_task(task: int) -> tuple[Tensor, Tensor]:
            *support, last = (batch.of_task(task) for batch in self._records.batches)
            theta = self._adapted(phi, support)
            new = self._policy.distribution(theta, last.observations)
            return self._judge(theta, last), divergence_between(old[task], new, last.weights)

        losses, divergences = zip(*side_by_side(of_task, range(self.n_tasks), self._threads), strict=True)
        return torch.stack(losses).mean(), torch.stack(divergences).mean()

    def curvature(self, phi: Tensor) -> Product:
        """See :class:`metalib.meta_training.trust_region.Problem`; the linearisation is made once, here."""
        batches = tuple(thinned(batch, self._thin) for batch in self._records.batches)
        blocks = [slice(start, start + _TASKS_A_BLOCK) for start in range(0, self.n_tasks, _TASKS_A_BLOCK)]
        parts = [tuple(batch.of_tasks(block) for batch in batches) for block in blocks]
        products = side_by_side(partial(self._block_curvature, phi), parts, self._threads)

        def product(vector: Tensor) -> Tensor:
            shares = side_by_side(lambda of: of(vector), products, self._threads)
            return torch.stack(shares).sum(dim=0)

        return product

    @cached_property
    def _old_distributions(self) -> list[tuple[Tensor, Tensor]]:
        """Each task's means ``[n, a]`` and log standard deviations ``[a]`` when it acted; one for all tries."""

        @torch.no_grad()
        def of_task(task: int) -> tuple[Tensor, Tensor]:
            return self._policy.distribution(self._records.thetas[task], self._records.batches[-1].observations[task])

        return side_by_side(of_task, range(self.n_tasks), self._threads)

    def _block_curvature(self, phi: Tensor, batches: tuple[PolicyBatch, ...]) -> Product:
        """Return the share of some tasks in the curvature of the mean over all tasks."""
        policy = self._policy
        at = phi.detach().requires_grad_()

        def outputs(*of_task: PolicyBatch) -> tuple[Tensor, Tensor]:
            *support, last = of_task
            return policy.distribution(self._adapted(at, support), last.observations)

        outs = vmap(outputs)(*batches)
        # J^T u is linear in u; its derivative along v is J v, by reverse mode alone, and both graphs serve every v.
        dual = tuple(torch.zeros_like(out, requires_grad=True) for out in outs)
        (pulled,) = torch.autograd.grad(outs, at, dual, create_graph=True)
        mean, log_std = outs
        n_states = mean.shape[1]
        # The Fisher matrix of a Gaussian, in its mean and log standard deviation: diag(1 / s^2, 2).
        of_mean = (torch.exp(-2 * log_std.detach()) / (n_states * self.n_tasks))[:, None]
        of_log_std = 2.0 / self.n_tasks

        def product(vector: Tensor) -> Tensor:
            along_mean, along_log_std = torch.autograd.grad(pulled, dual, vector, retain_graph=True)
            weighted = (of_mean * along_mean, of_log_std * along_log_std)
            (result,) = torch.autograd.grad(outs, at, weighted, retain_graph=True)
            return result

        return product

    def _adapted(self, phi: Tensor, support: Sequence[PolicyBatch]) -> Tensor:
        theta, omega = split(phi, self._rule)
        return adapt(self._loss, self._rule, omega, theta, support)[-1]
