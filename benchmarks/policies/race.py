"""Adaptation and outer step beside a plain loop over tasks, on the same records and after a check of both."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.measure import DisagreementError
from benchmarks.policies.cases import SEED, Case
from benchmarks.policies.plain_loop import PlainLoop, Settings, Steps, Task
from metalib.locomotion.surrogate import SURROGATES, PolicyBatch, thinned
from metalib.meta_training.policy_search import PolicySearch
from metalib.meta_training.replay import AdaptedPolicies, Records
from metalib.meta_training.trust_region import trust_region_step
from metalib.policy_adaptation import Iterate
from metalib.randomness import generator

TOLERANCES = {"adapted": 1e-5, "gradient": 1e-4, "product": 1e-3}
"""Largest deviation from the plain loop, relative to its norm: of theta_1, of the meta-gradient, and of the product of
the curvature with that gradient. All is float32."""
PAUSE = 0.3
"""Seconds before each sample, in which the other's idle threads stop waiting for work."""


def race(case: Case, repeats: int, threads: int) -> dict[str, Any]:
    """Check that both compute the same, then time them in turn.

    Returns:
        deviations by :data:`TOLERANCES`, and of the step (with ten iterations of conjugate gradients between the
        gradient and it); plain_threads that PyTorch uses within its operations; and seconds (samples) of adaptation
        and outer_step, each of metalib and plain.

    Raises:
        DisagreementError: a deviation is above its tolerance.
    """
    search = case.search(threads, 1)
    phi = case.initial_phi(search.adaptation.sampler.policy)
    iterates = search.adaptation.iterates(phi, case.goals(), 1, lambda t: generator(SEED, "rollouts", t))
    problem, plain = _problem(search, iterates, threads), _plain_loop(case, search, phi, iterates)

    def adapt() -> Tensor:
        return search.adaptation._replayed(phi, [iterates[0].batch], case.tasks)

    deviations = _deviations(adapt(), problem, plain, phi)
    refuse_disagreement(case.label, deviations)

    def step() -> Tensor:
        # A problem of its own each time: it remembers the old distributions.
        return trust_region_step(_problem(search, iterates, threads), phi, search.trust_region).phi

    moved, (plainly, _) = step() - phi, plain.step()
    deviations["step"] = _relative(moved, plainly - phi)
    return {
        "deviations": deviations,
        "plain_threads": torch.get_num_threads(),
        "seconds": {
            "adaptation": in_turn({"metalib": adapt, "plain": plain.adapted}, repeats),
            "outer_step": in_turn({"metalib": step, "plain": plain.step}, repeats),
        },
    }


def refuse_disagreement(label: str, deviations: dict[str, float]) -> None:
    """Raise a DisagreementError unless every deviation is within its tolerance."""
    for name, tolerance in TOLERANCES.items():
        if not deviations[name] <= tolerance:
            raise DisagreementError(
                f"{label}: {name} of metalib and of the plain loop differ by {deviations[name]:.2g} of their norm, "
                f"more than {tolerance:.0e}"
            )


def in_turn(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Return ``repeats`` samples of the seconds of each call, taken in turn."""
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            time.sleep(PAUSE)
            began = time.perf_counter()
            call()
            samples[name].append(time.perf_counter() - began)
    return samples


def summarise_race(found: dict[str, Any]) -> dict[str, Any]:
    """Return medians, and ``times_as_fast``: the median over pairs that were timed after each other."""
    rows = {
        name: {
            "metalib_s": statistics.median(samples["metalib"]),
            "plain_s": statistics.median(samples["plain"]),
            "times_as_fast": statistics.median(
                plain / own for own, plain in zip(samples["metalib"], samples["plain"], strict=True)
            ),
        }
        for name, samples in found["seconds"].items()
    }
    return {**rows, "deviations": found["deviations"], "plain_threads": found["plain_threads"]}


def _problem(search: PolicySearch, iterates: list[Iterate], threads: int) -> AdaptedPolicies:
    adaptation = search.adaptation
    policy = adaptation.sampler.policy
    records = Records(tuple(iterate.batch for iterate in iterates), iterates[-1].thetas)
    judge = SURROGATES["likelihood_ratio"](policy)
    return AdaptedPolicies(policy, adaptation.rule, adaptation.loss, judge, records, search.thin, threads)


def _plain_loop(case: Case, search: PolicySearch, phi: Tensor, iterates: list[Iterate]) -> PlainLoop:
    region, policy = search.trust_region, search.adaptation.sampler.policy
    settings = Settings(
        sizes=policy.sizes,
        activation=policy.activation,
        inner_rate=case.inner_rate,
        kl_bound=region.bound,
        conjugate_gradient_steps=region.conjugate_gradient_steps,
        damping=region.damping,
        shrink=region.shrink,
        tries=region.tries,
    )
    support, query = (iterate.batch for iterate in iterates)
    few_support, few_query = (thinned(batch, case.thin) for batch in (support, query))
    return PlainLoop(settings, phi, _tasks(support, query), _tasks(few_support, few_query))


def _tasks(support: PolicyBatch, query: PolicyBatch) -> list[Task]:
    """Return each task's steps, without padding and in memory of their own."""
    return [Task(_steps(support.of_task(task)), _steps(query.of_task(task))) for task in range(len(query.weights))]


def _steps(batch: PolicyBatch) -> Steps:
    taken = batch.weights > 0
    return Steps(*(part[taken] for part in batch[:4]))


def _deviations(adapted: Tensor, problem: AdaptedPolicies, plain: PlainLoop, phi: Tensor) -> dict[str, float]:
    (_, own), (_, expected) = problem.gradient(phi), plain.gradient()
    return {
        "adapted": _relative(adapted, plain.adapted()),
        "gradient": _relative(own, expected),
        "product": _relative(problem.curvature(phi)(expected), plain.curvature()(expected)),
    }


def _relative(found: Tensor, expected: Tensor) -> float:
    """Return the norm of the difference, as a share of that of ``expected``."""
    return float((found - expected).double().norm() / expected.double().norm())
