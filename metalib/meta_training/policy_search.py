"""The outer loop for policies: trust-region steps on what adapted policies earn."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from metalib.locomotion.surrogate import SURROGATES
from metalib.meta_training.replay import AdaptedPolicies, Records
from metalib.meta_training.trust_region import TrustRegion, trust_region_step
from metalib.policy_adaptation import Iterate, PolicyAdaptation
from metalib.randomness import generator

CURVE_COLUMNS = ("env_steps", "return_before", "return_after", "validation_return")
COUNT_NAMES = ("non_finite_rollouts", "singular_baseline_fits", "failed_line_searches")


class SearchState(NamedTuple):
    """Where a search stands; tensors only, so that it can be saved.

    Args:
        phi: meta-parameters ``[n_phi]``.
        best_phi: those with the best validation return so far.
        best_return: that return, a scalar.
        best_step: the meta-steps it took, a scalar.
        curve: :data:`CURVE_COLUMNS` after each meta-step, ``[n_steps, 4]``; NaN where nothing was measured.
        counts: of what went wrong, :data:`COUNT_NAMES`.
    """

    phi: Tensor
    best_phi: Tensor
    best_return: Tensor
    best_step: Tensor
    curve: Tensor
    counts: Tensor


@dataclass(frozen=True)
class PolicySearch:
    """MAML with trust-region steps (Finn et al. 2017, algorithm 3, section 5.3); without inner steps, plain TRPO.

    A meta-step draws goals, collects rollouts before and after ``inner_steps`` of adaptation, and moves phi by one
    trust-region step on the surrogate of the adapted policies. Environment steps are those of these rollouts.

    The first ``pretraining_steps`` meta-steps take no inner step: from the rollouts of theta_0 alone they teach it what
    all goals have in common, and none of their policies is chosen in the end.

    A meta-step without an inner step draws a new goal for each episode, as the paper's pretrained policy has it; but
    one for each task if the policy is shown the goal. The value baseline is linear and fitted to a task's episodes, so
    it cannot know what a state is worth to each of several goals: noise to a policy that acts by them.

    Args:
        adaptation: how a task's policy adapts.
        inner_steps: T; 0 trains one policy for all goals.
        pretraining_steps: meta-steps that take no inner step, the first ones.
        trust_region: the outer step.
        meta_batch: tasks a meta-step.
        thin: the curvature is taken on every ``thin``-th state.
        validation_goals: ``[task, goal_size]``, by which the best parameters are chosen.
        validate_every: meta-steps between two looks at them; the last meta-step is looked at in any case.
        seed: of the training.
    """

    adaptation: PolicyAdaptation
    inner_steps: int
    pretraining_steps: int
    trust_region: TrustRegion
    meta_batch: int
    thin: int
    validation_goals: Tensor
    validate_every: int
    seed: int

    def start(self, phi: Tensor, n_steps: int) -> SearchState:
        """Return the state before the first of ``n_steps`` meta-steps from ``phi`` ``[n_phi]``.

        Raises:
            ValueError: all of them would be pretraining.
        """
        if not 0 <= self.pretraining_steps < max(n_steps, 1):
            raise ValueError(f"pretraining_steps must be from 0 to {n_steps - 1}, got {self.pretraining_steps}")
        curve = torch.full((n_steps, len(CURVE_COLUMNS)), torch.nan, dtype=torch.float64)
        worst = torch.tensor(-torch.inf, dtype=torch.float64)
        return SearchState(
            phi, phi.clone(), worst, torch.tensor(0), curve, torch.zeros(len(COUNT_NAMES), dtype=torch.int64)
        )

    def run(self, state: SearchState, first_step: int = 0) -> Iterator[SearchState]:
        """Yield the state after each meta-step from ``first_step`` on; a resumed search repeats the same steps."""
        n_steps = len(state.curve)
        for step in range(first_step, n_steps):
            state = self._meta_step(state, step)
            if (step + 1) % self.validate_every == 0 or step + 1 == n_steps:
                state = self._validated(state, step)
            yield state

    def _meta_step(self, state: SearchState, step: int) -> SearchState:
        inner_steps = self.inner_steps if step >= self.pretraining_steps else 0
        iterates = self.adaptation.iterates(
            state.phi,
            self._draw_goals(step, goal_per_rollout=inner_steps == 0 and not self._sees_goal),
            inner_steps,
            lambda t: generator(self.seed, f"meta-training rollouts, iterate {t}", step),
        )
        outcome = trust_region_step(self._problem(iterates), state.phi, self.trust_region)
        so_far = state.curve[step - 1, 0] if step else 0.0
        taken = sum(int(iterate.found.mask.sum()) for iterate in iterates)
        curve = state.curve.clone()
        before = iterates[0].found.mean_return()
        after = iterates[-1].found.mean_return() if inner_steps else math.nan
        curve[step, :3] = torch.tensor([so_far + taken, before, after], dtype=torch.float64)
        wrong = torch.tensor(
            [
                sum(int(iterate.found.non_finite.sum()) for iterate in iterates),
                sum(int(iterate.singular.sum()) for iterate in iterates),
                int(not outcome.accepted),
            ]
        )
        return state._replace(phi=outcome.phi, curve=curve, counts=state.counts + wrong)

    @property
    def _sees_goal(self) -> bool:
        return self.adaptation.sampler.view.goal_size > 0

    def _draw_goals(self, step: int, *, goal_per_rollout: bool) -> Tensor:
        family, rollouts = self.adaptation.sampler.family, self.adaptation.sampler.rollouts
        numbers = generator(self.seed, "meta-training goals", step)
        if goal_per_rollout:
            return family.draw_goals(numbers, self.meta_batch * rollouts).view(self.meta_batch, rollouts, -1)
        return family.draw_goals(numbers, self.meta_batch)

    def _problem(self, iterates: list[Iterate]) -> AdaptedPolicies:
        records = Records(tuple(iterate.batch for iterate in iterates), iterates[-1].thetas)
        sampler = self.adaptation.sampler
        judge = SURROGATES["likelihood_ratio"](sampler.policy)
        return AdaptedPolicies(
            sampler.policy, self.adaptation.rule, self.adaptation.loss, judge, records, self.thin, sampler.threads
        )

    def _validated(self, state: SearchState, step: int) -> SearchState:
        """Return the state with its parameters judged on the validation goals, always with the same noise."""
        iterates = self.adaptation.iterates(
            state.phi,
            self.validation_goals,
            self.inner_steps,
            lambda t: generator(self.seed, f"validation rollouts, iterate {t}"),
        )
        found = iterates[-1].found.mean_return()
        curve = state.curve.clone()
        curve[step, 3] = found
        state = state._replace(curve=curve)
        unfit = step < self.pretraining_steps or bool(iterates[-1].found.broken.any())
        if unfit or found <= state.best_return.item():
            return state
        best = torch.tensor(found, dtype=torch.float64)
        return state._replace(best_phi=state.phi, best_return=best, best_step=torch.tensor(step + 1))
