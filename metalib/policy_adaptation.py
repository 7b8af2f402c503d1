"""Adapting policies to tasks: collect rollouts, take an inner step on them, collect again."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from metalib.adaptation import adapt
from metalib.locomotion.advantages import estimate_advantages
from metalib.locomotion.sampler import Sampler
from metalib.locomotion.surrogate import PolicyBatch, policy_batch
from metalib.locomotion.trajectories import Trajectories
from metalib.losses import Loss
from metalib.meta_parameters import split
from metalib.threads import side_by_side
from metalib.update_rules.protocol import UpdateRule

Generators = Callable[[int], torch.Generator]
"""The generator of the rollouts of iterate t."""


class Iterate(NamedTuple):
    """One iterate of every task's learner, and what it lived through.

    Args:
        thetas: theta_t ``[task, n_parameters]``.
        found: the rollouts of theta_t.
        batch: the same as something to learn from.
        singular: ``[task]``, whose baseline fit was singular.
    """

    thetas: Tensor
    found: Trajectories
    batch: PolicyBatch
    singular: Tensor


@dataclass(frozen=True)
class PolicyAdaptation:
    """How policies adapt: the tasks' rollouts, the update rule, and what it lowers.

    Args:
        sampler: where rollouts come from.
        rule: how theta moves.
        loss: of :data:`metalib.locomotion.surrogate.SURROGATES`, for the sampler's policy.
        gamma: discount.
        lam: lambda of the advantages.
    """

    sampler: Sampler
    rule: UpdateRule
    loss: Loss
    gamma: float
    lam: float

    def iterates(
        self, phi: Tensor, goals: Tensor, steps: int, generators: Generators, known: Sequence[Iterate] = ()
    ) -> list[Iterate]:
        """Return theta_0, ..., theta_``steps`` of each task with their rollouts.

        The rollouts of theta_t made no difference to theta_t: they are fresh, and judge it fairly.

        Args:
            phi: meta-parameters ``[n_phi]``.
            goals: ``[task, goal_size]``, or ``[task, rollout, goal_size]``.
            steps: inner steps.
            generators: of the rollouts.
            known: the first iterates, where they were collected before with the same arguments; theta_0 and its
                rollouts do not depend on the rule.
        """
        found = list(known)
        for step in range(len(known), steps + 1):
            thetas = self._replayed(phi, [iterate.batch for iterate in found], len(goals))
            found.append(self._live(thetas, goals, generators(step)))
        return found

    def adapted(self, phi: Tensor, goals: Tensor, steps: int, generators: Generators) -> Tensor:
        """Return theta_``steps`` of each task, ``[task, n_parameters]``; arguments as in :meth:`iterates`."""
        before = self.iterates(phi, goals, steps - 1, generators) if steps else []
        return self._replayed(phi, [iterate.batch for iterate in before], len(goals))

    def _replayed(self, phi: Tensor, batches: list[PolicyBatch], n_tasks: int) -> Tensor:
        """Return every task's theta after an inner step on each of its batches."""
        theta, omega = split(phi, self.rule)
        if not batches:
            return theta.expand(n_tasks, -1).contiguous()

        def of_task(task: int) -> Tensor:
            support = [batch.of_task(task) for batch in batches]
            return adapt(self.loss, self.rule, omega, theta, support)[-1].detach()

        return torch.stack(side_by_side(of_task, range(n_tasks), self.sampler.threads))

    def _live(self, thetas: Tensor, goals: Tensor, generator: torch.Generator) -> Iterate:
        found = self.sampler.collect(thetas, goals, generator)
        advantages, singular = estimate_advantages(found, self.gamma, self.lam, self.sampler.threads)
        batch = policy_batch(self.sampler.policy, thetas, found, advantages, self.sampler.threads)
        return Iterate(thetas, found, batch, singular)
