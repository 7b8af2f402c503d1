"""The trust-region step against solved linear systems, and against problems that do their worst."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metalib.meta_training.trust_region import TrustRegion, conjugate_gradients, trust_region_step
from tests.made_up_rollouts import numbers

N = 6
ROOT = numbers("root", N, N)
FISHER = ROOT @ ROOT.T + 0.1 * torch.eye(N).double()
SLOPE, PHI = numbers("slope", N), numbers("phi", N)


class Quadratic:
    """Loss ``g (phi - phi_0) + bend / 2 |phi - phi_0|^2``; divergence ``(phi - phi_0) F (phi - phi_0) / 2``."""

    def __init__(self, slope=SLOPE, fisher=FISHER, bend=0.0):
        self.slope, self.fisher, self.bend = slope, fisher, bend

    def gradient(self, phi):
        return self.evaluate(phi)[0], self.slope

    def curvature(self, phi):
        return lambda vector: self.fisher @ vector

    def evaluate(self, phi):
        moved = phi - PHI
        return self.slope @ moved + self.bend / 2 * moved @ moved, moved @ self.fisher @ moved / 2


@pytest.mark.parametrize("damping", [1e-3, 0.5])
@pytest.mark.parametrize("bound", [0.01, 3.0])
def test_the_step_is_the_natural_gradient_scaled_to_the_bound(bound, damping):
    step = trust_region_step(Quadratic(), PHI, TrustRegion(bound, N + 4, damping))
    natural = torch.linalg.solve(FISHER + damping * torch.eye(N).double(), SLOPE)
    expected = -math.sqrt(2 * bound / (natural @ SLOPE).item()) * natural
    torch.testing.assert_close(step.phi - PHI, expected, rtol=1e-6, atol=1e-9)
    assert step.accepted
    assert step.loss_before == 0.0
    assert step.loss_after == pytest.approx((SLOPE @ expected).item(), rel=1e-6)
    assert step.divergence == pytest.approx((expected @ FISHER @ expected / 2).item(), rel=1e-6)
    assert step.divergence <= bound


def test_a_step_too_long_for_the_loss_is_shrunk_until_it_lowers_it():
    curved = Quadratic(bend=100.0)
    region = TrustRegion(1.0, N + 4, 1e-3, shrink=0.5)
    full = trust_region_step(Quadratic(), PHI, region).phi - PHI
    step = trust_region_step(curved, PHI, region)
    times = round(math.log2(full.norm() / (step.phi - PHI).norm()))
    assert times >= 1
    torch.testing.assert_close(step.phi - PHI, full / 2**times, rtol=1e-12, atol=0)
    assert step.loss_after < 0 <= curved.evaluate(PHI + 2 * (step.phi - PHI))[0].item()


@pytest.mark.parametrize("seed", range(3))
def test_conjugate_gradients_solve_linear_systems(seed):
    root, target = numbers("root", N, N, step=seed), numbers("target", N, step=seed)
    matrix = root @ root.T + 0.1 * torch.eye(N).double()
    found = conjugate_gradients(lambda vector: matrix @ vector, target, 3 * N, tolerance=1e-28)
    torch.testing.assert_close(found, torch.linalg.solve(matrix, target), rtol=1e-8, atol=1e-10)


def test_as_many_iterations_as_distinct_eigenvalues_are_exact():
    diagonal = torch.tensor([1.0, 1.0, 5.0, 5.0, 5.0, 9.0]).double()
    found = conjugate_gradients(lambda vector: diagonal * vector, SLOPE, 3)
    torch.testing.assert_close(found, SLOPE / diagonal, rtol=1e-12, atol=0)
    assert not torch.allclose(
        conjugate_gradients(lambda vector: diagonal * vector, SLOPE, 2), SLOPE / diagonal, rtol=0.01
    )


NASTY = st.one_of(st.floats(-2, 2), st.sampled_from([math.nan, math.inf, -math.inf, 0.01, -0.0]))


class Adversary:
    """Answers the line search with given losses and divergences, and remembers what it was asked."""

    def __init__(self, before, slope, stretch, answers):
        self.before, self.slope, self.stretch, self.answers = before, slope, stretch, answers
        self.asked: list[torch.Tensor] = []

    def gradient(self, phi):
        return torch.tensor(self.before), torch.tensor(self.slope)

    def curvature(self, phi):
        return lambda vector: torch.tensor(self.stretch) * vector

    def evaluate(self, phi):
        self.asked.append(phi)
        loss, divergence = self.answers[(len(self.asked) - 1) % len(self.answers)]
        return torch.tensor(loss), torch.tensor(divergence)


@settings(deadline=None)
@given(
    before=NASTY,
    slope=st.lists(NASTY, min_size=2, max_size=2),
    stretch=st.lists(NASTY, min_size=2, max_size=2),
    answers=st.lists(st.tuples(NASTY, NASTY), min_size=1, max_size=6),
    damping=st.sampled_from([0.0, 1e-5]),
)
def test_the_line_search_accepts_nothing_worse(before, slope, stretch, answers, damping):
    problem, phi = Adversary(before, slope, stretch, answers), torch.zeros(2)
    region = TrustRegion(damping=damping, tries=5)
    step = trust_region_step(problem, phi, region)
    assert len(problem.asked) <= 5
    if not step.accepted:
        assert step.phi is phi
        assert step.divergence == 0.0
        return
    assert step.loss_after < before
    assert math.isfinite(step.loss_after)
    assert step.divergence <= region.bound
    assert step.phi is problem.asked[-1]
    assert step.phi.isfinite().all()
    assert (step.loss_after, step.divergence) == pytest.approx(answers[(len(problem.asked) - 1) % len(answers)])


@pytest.mark.parametrize(
    ("loss", "divergence", "accepted"),
    [
        (0.99, 0.01, True),
        (1.0, 0.005, False),
        (1.01, 0.005, False),
        (0.9, 0.0101, False),
        (math.nan, 0.005, False),
        (0.9, math.nan, False),
        (-math.inf, 0.005, False),
    ],
)
def test_when_a_step_is_accepted(loss, divergence, accepted):
    problem = Adversary(1.0, [1.0, -1.0], [1.0, 2.0], [(loss, divergence - 1e-9)])
    step = trust_region_step(problem, torch.zeros(2), TrustRegion(tries=4))
    assert step.accepted == accepted
    assert len(problem.asked) == (1 if accepted else 4)


def test_a_gradient_of_zero_moves_nothing():
    step = trust_region_step(Quadratic(slope=torch.zeros(N).double()), PHI, TrustRegion())
    assert not step.accepted
    assert step.phi is PHI


def test_a_curvature_that_is_not_positive_moves_nothing():
    assert not trust_region_step(Quadratic(fisher=-FISHER), PHI, TrustRegion()).accepted
    assert not trust_region_step(Quadratic(fisher=0 * FISHER), PHI, TrustRegion(damping=0.0)).accepted


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"bound": 0.0}, "bound must be a positive finite number, got 0.0"),
        ({"bound": math.inf}, "bound must be a positive finite number"),
        ({"bound": math.nan}, "bound must be a positive finite number"),
        ({"damping": -1e-9}, "damping must be 0 or more and finite"),
        ({"damping": math.nan}, "damping must be 0 or more and finite"),
        ({"shrink": 1.0}, "shrink must be between 0 and 1, got 1.0"),
        ({"shrink": 0.0}, "shrink must be between 0 and 1"),
        ({"conjugate_gradient_steps": 0}, "conjugate_gradient_steps and tries must be 1 or more"),
        ({"tries": 0}, "conjugate_gradient_steps and tries must be 1 or more"),
    ],
)
def test_settings_out_of_range_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        TrustRegion(**wrong)
