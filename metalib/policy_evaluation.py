"""What policies earn on held-out goals, before and after gradient steps."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from metalib.locomotion.trajectories import Trajectories
from metalib.policy_adaptation import Generators
from metalib.trained_policy import TrainedPolicy
from metalib.update_rules import GradientDescent, UpdateRule, rate_name


def _ignore(batches: int) -> None:
    pass


def adapted_returns(
    trained: TrainedPolicy,
    rule: UpdateRule,
    goals: Tensor,
    rollouts: int,
    steps: int,
    threads: int,
    generators: Generators,
    advance: Callable[[int], object] = _ignore,
) -> Tensor:
    """Return the mean return of each goal's rollouts after 0, 1, ..., ``steps`` gradient steps.

    Returns are undiscounted. The rollouts of a step are fresh: what the policy adapted on are those of the steps
    before. Rollouts that broke down are left out; where all of a goal's did, its return is NaN.

    Args:
        trained: the policy, all seeds.
        rule: how it adapts.
        goals: ``[goal, goal_size]``.
        rollouts: K, of every goal and step.
        steps: gradient steps.
        threads: that step bodies and adapt.
        generators: of each step's rollouts; called again for every seed.
        advance: told how many batches of rollouts were made.

    Returns:
        ``[seed, goal, gradient_step]``, float64.
    """
    adaptation = trained.adaptation(rule, rollouts, threads)
    of_seeds = []
    for phi in trained.phi:
        iterates = adaptation.iterates(phi, goals, steps, generators)
        of_seeds.append(torch.stack([iterate.found.mean_returns for iterate in iterates], dim=1))
        advance(steps + 1)
    return torch.stack(of_seeds)


def choose_policy_rate(
    trained: TrainedPolicy,
    rates: Sequence[float],
    goals: Tensor,
    threads: int,
    generators: Generators,
    advance: Callable[[int], object] = _ignore,
) -> dict[str, float | None]:
    """Try rates of gradient descent on validation goals, by the return after one step.

    Args:
        trained: the policy, all seeds.
        rates: candidates.
        goals: of validation, ``[goal, goal_size]``.
        threads: as above.
        generators: of the rollouts of steps 0 and 1, the same for every rate.
        advance: as above.

    Returns:
        the mean return over seeds and goals by rate, None where a policy broke down, and which rate is "chosen": the
        best, of equals the smallest; the smallest as well where policies broke down at every rate.
    """
    adaptations = [trained.adaptation(GradientDescent(rate), threads=threads) for rate in sorted(rates)]
    of_seeds = []
    for phi in trained.phi:
        # Before the first step every rate is the same, so its rollouts are collected once.
        before = adaptations[0].iterates(phi, goals, 0, generators)
        advance(1)
        of_rates = []
        for adaptation in adaptations:
            iterates = adaptation.iterates(phi, goals, 1, generators, before)
            of_rates.append(torch.stack([_unbroken_returns(iterate.found) for iterate in iterates]))
            advance(1)
        of_seeds.append(torch.stack(of_rates))
    found = dict(zip(sorted(rates), torch.stack(of_seeds, dim=2), strict=True))  # [gradient_step, seed, goal] each
    means = {rate: values[1].mean().item() for rate, values in found.items() if values.isfinite().all()}
    chosen = max(means, key=lambda rate: means[rate]) if means else min(found)
    return {"chosen": chosen, **{rate_name(rate): means.get(rate) for rate in found}}


def _unbroken_returns(found: Trajectories) -> Tensor:
    """Return the mean return of each task, ``[task]``; NaN where a rollout broke down."""
    return found.mean_returns.masked_fill(found.broken, torch.nan)
