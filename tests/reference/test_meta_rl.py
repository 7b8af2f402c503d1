"""The meta-gradient, curvature and replay of policies, against computations written out in float64."""

import numpy as np
import pytest
import torch
from torch.autograd.functional import hessian, jacobian

from metalib.adaptation import adapt
from metalib.locomotion.policy import GaussianPolicy
from metalib.locomotion.surrogate import SURROGATES, PolicyBatch
from metalib.meta_parameters import join, split
from metalib.meta_training.replay import AdaptedPolicies, Records
from metalib.randomness import generator
from metalib.update_rules import GradientDescent, LSTMRule, MetaSGD, ScheduledGradientDescent, UpdateRule
from tests.made_up_rollouts import POLICY, hand_distribution, hand_loss, made_up_batch, made_up_theta, numbers

RATE = 0.1
N = POLICY.n_parameters
RULES: dict[str, UpdateRule] = {
    "gradient descent": GradientDescent(RATE),
    "gradient descent, first order": GradientDescent(RATE, first_order=True),
    "two rates": ScheduledGradientDescent((RATE, 0.05)),
    "meta-sgd": MetaSGD(N, RATE),
}
LSTM = LSTMRule(hidden_size=2, first_order=False)


def start(rule):
    omega = rule.initial_omega(generator(0, "omega")).double()
    if isinstance(rule, MetaSGD):
        omega += 0.03 * numbers("rates", N)
    if isinstance(rule, LSTMRule):
        omega = omega + 0.3 * numbers("gates", rule.n_omega)
    return join(made_up_theta(), omega)


def records(rule, phi, inner_steps, tasks=3, kind="likelihood_ratio", padding=2):
    """What ``inner_steps`` steps of each task's learner leave behind."""
    theta, omega = split(phi, rule)
    batches: list[PolicyBatch] = []
    thetas = theta.expand(tasks, -1)
    for step in range(inner_steps + 1):
        batches.append(made_up_batch(thetas, index=step, padding=padding))
        loss = SURROGATES[kind](POLICY)
        paths = [adapt(loss, rule, omega, theta, [batch.of_task(task) for batch in batches]) for task in range(tasks)]
        acted, thetas = thetas, torch.stack([path[-1].detach() for path in paths])
    return Records(tuple(batches), acted)


def adapted_policies(rule, of, kind="likelihood_ratio", **options):
    losses = SURROGATES[kind](POLICY), SURROGATES["likelihood_ratio"](POLICY)
    return AdaptedPolicies(POLICY, rule, *losses, of, **options)


def hand_adapted(rule, phi, batches, kind, constants=None):
    """Gradient descent by hand; ``constants`` are gradients to use instead of those at theta."""
    theta, rates = phi[:N], phi[N:] if isinstance(rule, MetaSGD) else RATE
    for step, batch in enumerate(batches):
        if isinstance(rule, ScheduledGradientDescent):
            rates = rule.rates[min(step, 1)]
        if constants:
            gradient = constants[step]
        else:
            at = theta if theta.requires_grad else theta.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(hand_loss(kind, at, batch), at, create_graph=True)
        theta = theta - rates * (gradient if phi.requires_grad else gradient.detach())
    return theta


def constant_gradients(phi, batches, kind):
    gradients: list[torch.Tensor] = []
    theta = phi[:N]
    for batch in batches:
        gradients.append(jacobian(lambda at, batch=batch: hand_loss(kind, at, batch), theta))
        theta = theta - RATE * gradients[-1]
    return gradients


def slope(function, phi, direction, h=1e-5):
    """The derivative along a direction by central differences, exact to h^4."""
    f = [float(function(phi + k * h * direction)) for k in (-2, -1, 1, 2)]
    return (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * h)


@pytest.mark.parametrize("kind", SURROGATES)
@pytest.mark.parametrize("inner_steps", [0, 1, 2])
@pytest.mark.parametrize("name", RULES)
def test_the_meta_gradient_is_that_of_finite_differences(name, inner_steps, kind):
    rule = RULES[name]
    phi = start(rule)
    of = records(rule, phi, inner_steps, kind=kind)
    tasks = [[batch.of_task(task) for batch in of.batches] for task in range(3)]
    constants = [constant_gradients(phi, task[:-1], kind) if rule.first_order else None for task in tasks]

    def by_hand(at):
        losses = [
            hand_loss("likelihood_ratio", hand_adapted(rule, at, support, kind, known), last)
            for (*support, last), known in zip(tasks, constants, strict=True)
        ]
        return torch.stack(losses).mean()

    loss, gradient = adapted_policies(rule, of, kind).gradient(phi)
    assert loss.item() == pytest.approx(float(by_hand(phi)), rel=1e-12)
    for index in range(3):
        direction = numbers("direction", len(phi), step=index)
        expected = slope(by_hand, phi, direction)
        assert (gradient @ direction).item() == pytest.approx(expected, rel=1e-7, abs=1e-9)


def test_first_and_second_order_differ():
    phi = start(RULES["gradient descent"])
    of = records(RULES["gradient descent"], phi, 1)
    first, second = (
        adapted_policies(RULES[name], of).gradient(phi)[1]
        for name in ("gradient descent, first order", "gradient descent")
    )
    assert (first - second).norm() > 0.05 * second.norm()


@pytest.mark.parametrize("inner_steps", [1, 2])
def test_the_lstm_rule_adapts_policies(inner_steps):
    phi = start(LSTM)
    problem = adapted_policies(LSTM, records(LSTM, phi, inner_steps))
    _, gradient = problem.gradient(phi)
    for index, part in enumerate((slice(None), slice(0, N), slice(N, None))):
        direction = torch.zeros_like(phi)
        direction[part] = numbers("direction", len(phi), step=index)[part]
        expected = slope(lambda at: problem.evaluate(at)[0], phi, direction)
        assert (gradient @ direction).item() == pytest.approx(expected, rel=1e-6, abs=1e-9)
        assert abs(expected) > 1e-6


@pytest.mark.parametrize("inner_steps", [0, 1, 2])
def test_loss_and_divergence_elsewhere(inner_steps):
    rule = RULES["meta-sgd"]
    phi = start(rule)
    of = records(rule, phi, inner_steps)
    moved = phi + 0.05 * numbers("moved", len(phi))
    found = adapted_policies(rule, of).evaluate(moved)
    losses, divergences = [], []
    for task in range(3):
        *support, last = (batch.of_task(task) for batch in of.batches)
        theta = hand_adapted(rule, moved, support, "likelihood_ratio")
        losses.append(hand_loss("likelihood_ratio", theta, last))
        divergences.append(hand_divergence(of.thetas[task], theta, last))
    torch.testing.assert_close(found, (torch.stack(losses).mean(), torch.stack(divergences).mean()), rtol=1e-10, atol=0)


def hand_divergence(old, new, batch):
    taken = batch.observations[batch.weights > 0]
    pair = (hand_distribution(theta, taken) for theta in (old, new))
    return torch.distributions.kl_divergence(*pair).sum(dim=-1).mean()


@pytest.mark.parametrize("inner_steps", [0, 1])
@pytest.mark.parametrize("name", ["gradient descent", "meta-sgd"])
def test_the_curvature_is_the_hessian_of_the_divergence(name, inner_steps):
    rule = RULES[name]
    phi = start(rule)
    of = records(rule, phi, inner_steps, padding=0)

    def by_hand(at):
        total = torch.zeros((), dtype=torch.float64)
        for task in range(3):
            *support, last = (batch.of_task(task) for batch in of.batches)
            total = total + hand_divergence(of.thetas[task], hand_adapted(rule, at, support, "likelihood_ratio"), last)
        return total / 3

    product = adapted_policies(rule, of).curvature(phi)
    found = torch.stack([product(unit) for unit in torch.eye(len(phi), dtype=torch.float64)])
    torch.testing.assert_close(found, hessian(by_hand, phi), rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(found, found.T, rtol=1e-10, atol=1e-12)
    eigenvalues = torch.linalg.eigvalsh(found)
    assert eigenvalues.min() > -1e-10
    assert eigenvalues.max() > 0.1


def test_a_thinned_curvature_is_that_of_the_states_it_keeps():
    rule = RULES["gradient descent"]
    phi = start(rule)
    of = records(rule, phi, 0, padding=0)
    (batch,) = of.batches
    kept = PolicyBatch(*(part[:, [0, 1, 3, 5]] for part in batch))._replace(weights=torch.full((3, 4), 0.25).double())
    vector = numbers("vector", len(phi))
    thin = adapted_policies(rule, of, thin=2).curvature(phi)(vector)
    torch.testing.assert_close(thin, adapted_policies(rule, Records((kept,), of.thetas)).curvature(phi)(vector))
    assert not torch.allclose(thin, adapted_policies(rule, of).curvature(phi)(vector), rtol=1e-3)


def products(rule, of, phi, **options):
    problem = adapted_policies(rule, of, **options)
    return problem.gradient(phi), problem.evaluate(phi + 0.01), problem.curvature(phi)(numbers("vector", len(phi)))


def of_tasks(of, tasks):
    return Records(tuple(PolicyBatch(*(part[tasks] for part in batch)) for batch in of.batches), of.thetas[tasks])


def leaves(found):
    return [*found[0], *found[1], found[2]]


def test_every_task_has_a_share_of_its_own_and_their_order_does_not_matter():
    rule = RULES["gradient descent"]
    phi = start(rule)
    of = records(rule, phi, 1, tasks=7, padding=0)  # more than a block of the curvature
    together = leaves(products(rule, of, phi))
    alone = [leaves(products(rule, of_tasks(of, [task]), phi)) for task in range(7)]
    for whole, *parts in zip(together, *alone, strict=True):
        torch.testing.assert_close(torch.stack(parts).mean(dim=0), whole, rtol=1e-10, atol=1e-12)
    for one, other in zip(together, leaves(products(rule, of_tasks(of, [3, 6, 0, 5, 2, 1, 4]), phi)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["gradient descent", "meta-sgd"])
def test_the_number_of_threads_changes_no_bit(name):
    rule = RULES[name]
    phi = start(rule)
    of = records(rule, phi, 1, tasks=7)
    of = Records(tuple(PolicyBatch(*(part.float() for part in batch)) for batch in of.batches), of.thetas.float())
    one, two = (leaves(products(rule, of, phi.float(), threads=threads)) for threads in (1, 2))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


BANDIT = GaussianPolicy((1, 1))
GOAL, BANDIT_RATE = 1.5, 0.05
NODES, WEIGHTS = (torch.from_numpy(part) for part in np.polynomial.hermite_e.hermegauss(12))
"""Of Gauss and Hermite: exact means of polynomials of a standard normal up to degree 23, so no sampling noise."""


def bandit_records(theta, inner_steps, kind, baseline):
    """All actions of a one-step bandit with reward -(a - goal)^2, each with its probability as weight."""
    batches = []
    for _ in range(inner_steps + 1):
        weight, bias, log_std = theta.detach()
        actions = (weight + bias + log_std.exp() * NODES)[:, None]
        old = torch.distributions.Normal(weight + bias, log_std.exp()).log_prob(actions[:, 0])
        advantages = -((actions[:, 0] - GOAL) ** 2) - baseline
        batch = PolicyBatch(torch.ones_like(actions), actions, advantages, old, WEIGHTS / WEIGHTS.sum())
        batches.append(batch)
        loss = SURROGATES[kind](BANDIT)
        acted, theta = theta, theta - BANDIT_RATE * torch.func.grad(loss)(theta, batch)
    return Records(tuple(PolicyBatch(*(part[None] for part in batch)) for batch in batches), acted[None])


def true_return(theta, inner_steps):
    """The return after steps along the true policy gradient: E[-(a - goal)^2] = -(m - goal)^2 - s^2, m = w + b."""
    for _ in range(inner_steps):
        weight, bias, log_std = theta
        of_mean, of_log_std = -2 * (weight + bias - GOAL), -2 * torch.exp(2 * log_std)
        theta = theta + BANDIT_RATE * torch.stack([of_mean, of_mean, of_log_std])
    weight, bias, log_std = theta
    return -((weight + bias - GOAL) ** 2) - torch.exp(2 * log_std)


def bandit_meta_gradient(theta, inner_steps, kind, baseline):
    losses = SURROGATES[kind](BANDIT), SURROGATES["likelihood_ratio"](BANDIT)
    of = bandit_records(theta, inner_steps, kind, baseline)
    return -AdaptedPolicies(BANDIT, GradientDescent(BANDIT_RATE), *losses, of).gradient(theta)[1]


@pytest.mark.parametrize("baseline", [0.0, -2.0])
@pytest.mark.parametrize("inner_steps", [0, 1, 2])
def test_the_ratio_s_expected_meta_gradient_is_that_of_the_true_return(inner_steps, baseline):
    theta = torch.tensor([0.3, -0.1, -0.4], dtype=torch.float64)
    found = bandit_meta_gradient(theta, inner_steps, "likelihood_ratio", baseline)
    expected = [slope(lambda at: true_return(at, inner_steps), theta, unit) for unit in torch.eye(3).double()]
    assert found.tolist() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("baseline", [0.0, -2.0])
def test_the_log_probability_s_expected_meta_gradient_is_biased(baseline):
    theta = torch.tensor([0.3, -0.1, -0.4], dtype=torch.float64)
    ratio, logarithm = (
        bandit_meta_gradient(theta, 1, kind, baseline) for kind in ("likelihood_ratio", "log_probability")
    )
    assert (logarithm - ratio).norm() > 0.05 * ratio.norm()
    assert torch.equal(*(bandit_meta_gradient(theta, 0, kind, baseline) for kind in SURROGATES))
