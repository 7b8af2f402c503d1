"""A whole meta-step as :class:`PolicySearch` takes it, split into its parts."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from benchmarks.policies.cases import Case
from benchmarks.policies.stopwatch import Stopwatch, replaced
from metalib.locomotion.policy import Actor
from metalib.locomotion.sampler import Sampler
from metalib.locomotion.simulation import LocomotionSimulation
from metalib.meta_training.replay import AdaptedPolicies
from metalib.policy_adaptation import PolicyAdaptation

PARTS = (
    "rollouts",
    "advantages and baseline",
    "adaptation",
    "gradient",
    "linearisation",
    "conjugate gradients",
    "line search",
)
"""Of a meta-step, in their order; what none of them holds is ``rest``."""
INSIDE = ("policy", "simulation")
"""Of the rollouts."""


def split_meta_steps(case: Case, repeats: int, threads: int) -> list[dict[str, Any]]:
    """Take one meta-step from the fixed start to warm up, then time those after it.

    Returns:
        of each timed meta-step: whole (seconds), parts (seconds by :data:`PARTS` and rest), inside (seconds by
        :data:`INSIDE`, the mean of the threads that collect side by side) and env_steps.
    """
    n_steps = repeats + 1
    search = case.search(threads, n_steps)
    phi = case.initial_phi(search.adaptation.sampler.policy)
    states = search.run(search.start(phi, n_steps + 1))  # its last step would look at validation goals
    outside, inside = Stopwatch(), Stopwatch()
    samples: list[dict[str, Any]] = []
    taken = 0.0
    with _watched(outside, inside):
        for step in range(n_steps):
            began = time.perf_counter()
            state = next(states)
            whole = time.perf_counter() - began
            parts, within = outside.take(), inside.take()
            parts["rest"] = whole - sum(parts.values())
            collecting = min(threads, case.tasks)
            samples.append(
                {
                    "whole": whole,
                    "parts": {name: parts[name] for name in (*PARTS, "rest")},
                    "inside": {name: within[name] / collecting for name in INSIDE},
                    "env_steps": int(state.curve[step, 0].item() - taken),
                }
            )
            taken = state.curve[step, 0].item()
    return samples[1:]


@contextmanager
def _watched(outside: Stopwatch, inside: Stopwatch) -> Iterator[None]:
    """Time the parts with ``outside``, and with ``inside`` what the collecting threads do."""

    def curvature(function: Callable[..., Any]) -> Callable[..., Any]:
        linearise = outside.timed("linearisation", function)

        def of(problem: AdaptedPolicies, *args: Any) -> Any:
            return outside.timed("conjugate gradients", linearise(problem, *args))

        return of

    places: list[tuple[object, str, Callable[..., Any]]] = [
        (Sampler, "collect", partial(outside.timed, "rollouts")),
        (PolicyAdaptation, "_live", partial(outside.timed, "advantages and baseline")),
        (PolicyAdaptation, "_replayed", partial(outside.timed, "adaptation")),
        (AdaptedPolicies, "gradient", partial(outside.timed, "gradient")),
        (AdaptedPolicies, "curvature", curvature),
        (AdaptedPolicies, "evaluate", partial(outside.timed, "line search")),
        (Actor, "act", partial(inside.timed, "policy")),
        (LocomotionSimulation, "step", partial(inside.timed, "simulation")),
    ]
    with ExitStack() as stack:
        for place in places:
            stack.enter_context(replaced(*place))
        yield


def summarise_split(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Return medians over meta-steps, shares of the whole's median, and ``accounted``: the parts' sum as a share."""
    whole = statistics.median(sample["whole"] for sample in samples)

    def rows(kind: str) -> dict[str, dict[str, float]]:
        medians = {name: statistics.median(sample[kind][name] for sample in samples) for name in samples[0][kind]}
        return {name: {"seconds": seconds, "share": seconds / whole} for name, seconds in medians.items()}

    parts = rows("parts")
    return {
        "whole_s": whole,
        "parts": parts,
        "inside": rows("inside"),
        "accounted": sum(part["share"] for part in parts.values()),
        "env_steps_per_second": statistics.median(sample["env_steps"] / sample["whole"] for sample in samples),
        "samples": samples,
    }
