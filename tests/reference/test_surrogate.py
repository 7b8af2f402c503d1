"""Policy gradients as losses, against score functions and divergences written out in float64."""

import pytest
import torch
from torch.autograd.functional import hessian, jacobian

from metalib.locomotion.surrogate import SURROGATES, divergence_between, likelihood_ratio, log_probability
from tests.made_up_rollouts import (
    POLICY,
    hand_distribution,
    hand_log_probability,
    hand_loss,
    made_up_batch,
    made_up_theta,
)

THETA = made_up_theta()


def batch(padding=2):
    return made_up_batch(THETA[None], padding=padding).of_task(0)


def scores(of):
    """grad log pi of each step that was taken, ``[n, n_parameters]``, one parameter at a time by the quotient rule."""
    taken = of.weights > 0
    found = jacobian(lambda theta: hand_log_probability(theta, of.observations, of.actions), THETA)
    return found[taken], of.advantages[taken]


@pytest.mark.parametrize("kind", SURROGATES)
def test_the_gradient_is_the_score_function_estimate(kind):
    score, advantages = scores(batch())
    expected = -(advantages[:, None] * score).mean(dim=0)
    found = torch.func.grad(SURROGATES[kind](POLICY))(THETA, batch())
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-13)
    over_all_rows = -(advantages[:, None] * score).sum(dim=0) / len(batch().weights)
    assert not torch.allclose(found, over_all_rows, rtol=0.01)


def test_hessians_differ_by_the_product_of_scores():
    score, advantages = scores(batch())
    of = batch()
    ratio, logarithm = (
        hessian(lambda theta, f=f: f(POLICY)(theta, of), THETA) for f in (likelihood_ratio, log_probability)
    )
    expected = -torch.einsum("n,ni,nj->ij", advantages, score, score) / len(advantages)
    torch.testing.assert_close(ratio - logarithm, expected, rtol=1e-9, atol=1e-12)
    assert expected.norm() > 0.1 * ratio.norm()


@pytest.mark.parametrize("kind", SURROGATES)
def test_away_from_the_policy_that_acted(kind):
    moved, of = THETA + 0.1 * made_up_theta(1), batch()
    torch.testing.assert_close(SURROGATES[kind](POLICY)(moved, of), hand_loss(kind, moved, of), rtol=1e-12, atol=1e-14)
    ratio, logarithm = (torch.func.grad(f(POLICY))(moved, of) for f in (likelihood_ratio, log_probability))
    assert not torch.allclose(ratio, logarithm, rtol=0.01)


def test_log_probabilities_are_summed_over_the_parts_of_an_action():
    of = batch()
    found = torch.func.grad(log_probability(POLICY))(THETA, of)

    def averaged(theta):
        parts = hand_distribution(theta, of.observations).log_prob(of.actions).mean(dim=-1)
        return -(parts * of.advantages * of.weights).sum()

    torch.testing.assert_close(found, 2 * jacobian(averaged, THETA), rtol=1e-10, atol=1e-13)


def divergence(old, new, of):
    """The mean over the batch's steps of KL(pi_old || pi_new)."""
    before, after = (POLICY.distribution(theta, of.observations) for theta in (old, new))
    return divergence_between(before, after, of.weights)


def test_padding_changes_no_surrogate_and_no_divergence():
    of = batch(padding=0)
    with_padding = type(of)(*(torch.cat([part, torch.zeros_like(part[:3])]) for part in of))
    moved = THETA + 0.1 * made_up_theta(1)
    for kind in SURROGATES:
        values = [SURROGATES[kind](POLICY)(moved, each) for each in (of, with_padding)]
        torch.testing.assert_close(*values, rtol=1e-13, atol=0)
    values = [divergence(THETA, moved, each) for each in (of, with_padding)]
    torch.testing.assert_close(*values, rtol=1e-13, atol=0)


def test_the_divergence_is_torch_s():
    moved, of = THETA + 0.3 * made_up_theta(1), batch()
    taken = of.observations[of.weights > 0]
    old, new = (hand_distribution(theta, taken) for theta in (THETA, moved))
    expected, reverse = (torch.distributions.kl_divergence(*pair).sum(-1).mean() for pair in ((old, new), (new, old)))
    found = divergence(THETA, moved, of)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    assert found.item() != pytest.approx(reverse.item(), rel=0.01)
    assert divergence(THETA, THETA, of).item() == 0.0
