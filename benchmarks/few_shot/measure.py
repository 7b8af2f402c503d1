"""One contender prepared, held to the float64 reference, and timed, in a process of its own."""

import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from benchmarks.few_shot.contenders import CONTENDERS, OF_METHOD
from benchmarks.few_shot.problem import Problem, draw_episodes, start
from benchmarks.machine import peak_resident_mib
from benchmarks.measure import DisagreementError, time_calls
from metalib.compilation.repeat import Program
from metalib.losses import Episode
from metalib.meta_training.supervised import TrainingState

STEPS = 2
"""Meta-steps a call, and checked: the fewest that a compiled program takes."""
TOLERANCE = 1e-3
"""Largest distance of a part of the meta-gradient (one parameter's, or omega's) from the float64 reference, as a share
of its length."""


def contender(name: str, problem: dict[str, Any], threads: int, repeats: int, folder: str) -> dict[str, Any]:
    """Prepare a contender, check its meta-gradient against the reference, and time it.

    Args:
        name: of :data:`CONTENDERS`.
        problem: the fields of :class:`Problem`.
        threads: that PyTorch may use.
        repeats: timed samples.
        folder: where programs are compiled to.

    Returns:
        prepare_s, samples_ms (a meta-step), the peak of the resident memory after the first call (before the check),
        and the largest_deviation from the reference.

    Raises:
        DisagreementError: the deviation is above TOLERANCE.
    """
    torch.set_num_threads(threads)
    sizes = Problem(**problem)
    state, episodes = start(sizes), draw_episodes(sizes, STEPS)
    began = time.perf_counter()
    program = CONTENDERS[name].prepare(sizes, state, episodes, Path(folder))
    prepare_s = time.perf_counter() - began
    program(state, episodes)
    peak = peak_resident_mib()
    deviation = checked_deviation(name, program, sizes, state, episodes)
    samples = time_calls(lambda: program(state, episodes), repeats)
    return {
        "prepare_s": prepare_s,
        "samples_ms": [1e3 * sample / STEPS for sample in samples],
        "peak_resident_mib": peak,
        "largest_deviation": deviation,
    }


def checked_deviation(name: str, program: Program, problem: Problem, state: TrainingState, episodes: Episode) -> float:
    """Return the largest deviation of a program's meta-gradient from the reference in float64.

    Raises:
        DisagreementError: it is above TOLERANCE.
    """
    reference = CONTENDERS[OF_METHOD[problem.method][-1]]
    state = telling(problem, state)
    exact_state, exact_episodes = tree_map(_to_double, (state, episodes))
    exact = reference.prepare(problem, exact_state, exact_episodes, Path())
    found = meta_gradients(program, state, episodes)[0].double()
    expected = meta_gradients(exact, exact_state, exact_episodes)[0]
    deviation = max(_relative(found[part], expected[part]) for part in problem.parts())
    if not deviation <= TOLERANCE:
        raise DisagreementError(
            f"{name} disagrees with the float64 reference: a part of the meta-gradient is off by {deviation:.2g} "
            f"of its length, more than {TOLERANCE:.0e} ({problem})"
        )
    return deviation


def telling(problem: Problem, state: TrainingState) -> TrainingState:
    """Return the state with parameters of conv4 at which second derivatives can be compared to rounding.

    At initial parameters they hardly count, for the last layer is so small that the inner step moves little below it.
    And of millions of pre-activations rounding turns one now and then, which moves the meta-gradient by a thousandth;
    with scales small beside the shifts of batch normalisation, every ReLU is clearly on or clearly off. First-order
    rules need none of this.
    """
    if problem.rule.first_order:
        return state
    phi = state.phi.clone()
    for view in problem.architecture.network().layout:
        part = phi[:, view.start : view.stop]
        if view.name == "head.weight":
            part *= 50
        elif view.name.endswith("normalisation.weight"):
            part[:] = torch.linspace(0.1, 0.15, part.shape[1])
        elif view.name.endswith("normalisation.bias"):
            part[:, ::2], part[:, 1::2] = 1.0, -1.0
    return state._replace(phi=phi)


def meta_gradients(program: Program, state: TrainingState, episodes: Episode) -> Tensor:
    """Return the mean, weighted as Adam weights it, of the meta-gradients of all steps at one phi, ``[1, n_phi]``.

    The program that is timed keeps no meta-gradient, but the first moment of its Adam is such a mean; and with a second
    moment this large phi stays where it is.
    """
    held = state._replace(adam=state.adam._replace(second=torch.full_like(state.adam.second, 1e30)))
    after, _ = program(held, episodes)
    assert (after.phi - state.phi).abs().max() < 1e-12
    first: Tensor = after.adam.first
    return first


def _to_double(leaf: Tensor) -> Tensor:
    return leaf.double() if leaf.is_floating_point() else leaf


def _relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())
