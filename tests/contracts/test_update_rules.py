"""What holds for every update rule."""

import json

import pytest
import torch
from torch.func import vmap

from metalib.adaptation import adapt
from metalib.losses import Batch, MeanSquaredError
from metalib.networks import MLP
from metalib.randomness import generator
from metalib.tasks import Sinusoid
from metalib.update_rules import GradientDescent, LSTMRule, MetaSGD, ScheduledGradientDescent, UpdateRule, from_dict

ARCHITECTURE = MLP((1, 8, 1))
LOSS = MeanSquaredError(ARCHITECTURE.network())
N_PARAMETERS = ARCHITECTURE.network().n_parameters
RULES: dict[str, UpdateRule] = {
    "gradient descent": GradientDescent(0.01),
    "gradient descent, first order": GradientDescent(0.01, first_order=True),
    "lstm": LSTMRule(),
    "lstm, logits fed back": LSTMRule(hidden_size=3, feedback="logits"),
    "lstm, exact": LSTMRule(hidden_size=3, first_order=False),
    "lstm, larger rate at first": LSTMRule(hidden_size=3, input_bias=(-4.0, -3.0)),
    "meta-sgd": MetaSGD(N_PARAMETERS, 0.01),
    "meta-sgd, first order": MetaSGD(N_PARAMETERS, 0.01, first_order=True),
    "scheduled gradient descent": ScheduledGradientDescent((0.01, 0.005)),
    "scheduled gradient descent, first order": ScheduledGradientDescent((0.01, 0.005), first_order=True),
}


@pytest.fixture(params=RULES, name="rule")
def _rule(request):
    return RULES[request.param]


def start(rule):
    omega = rule.initial_omega(generator(0, "omega"))
    return omega, ARCHITECTURE.initial_theta(generator(0, "initial theta"), 0.3)


def support(n_tasks):
    return Sinusoid().draw_examples(generator(0, "support"), (n_tasks,), 5)[1]


def one(batch, index):
    return Batch(batch.x[index], batch.y[index])


def test_omega_has_the_promised_length(rule):
    assert rule.initial_omega(generator(0, "omega")).shape == (rule.n_omega,)


def test_step_is_pure_and_keeps_the_shape(rule):
    omega, theta = start(rule)
    gradient = torch.randn(theta.shape, generator=generator(0, "gradient"))
    before = theta.clone()
    state = rule.initial_state(theta)
    first, _ = rule.step(omega, theta, gradient, torch.tensor(1.0), state)
    second, _ = rule.step(omega, theta, gradient, torch.tensor(1.0), state)
    assert first.shape == theta.shape
    assert torch.equal(first, second)
    assert torch.equal(theta, before)


def test_no_steps_leave_theta_untouched(rule):
    omega, theta = start(rule)
    assert adapt(LOSS, rule, omega, theta, []) == [theta]


def test_each_further_step_extends_the_same_path(rule):
    omega, theta = start(rule)
    batch = one(support(1), 0)
    short, long = (adapt(LOSS, rule, omega, theta, [batch] * n) for n in (2, 4))
    assert len(long) == 5
    assert all(torch.equal(a, b) for a, b in zip(short, long, strict=False))


def test_small_steps_lower_the_support_loss(rule):
    omega, theta = start(rule)
    batch = one(support(1), 0)
    losses = [LOSS(t, batch) for t in adapt(LOSS, rule, omega, theta, [batch] * 5)]
    assert losses[-1] < losses[0]


def test_a_task_does_not_depend_on_its_neighbours_in_the_batch(rule):
    omega, theta = start(rule)
    batch = support(6)

    def last(batch):
        return adapt(LOSS, rule, omega, theta, [batch] * 3)[-1]

    together = vmap(last)(batch)
    changed = Batch(batch.x.clone(), batch.y.clone())
    changed.x[1:], changed.y[1:] = 3.0, -100.0
    assert torch.equal(vmap(last)(changed)[0], together[0])
    for index in range(6):
        torch.testing.assert_close(together[index], last(one(batch, index)), rtol=1e-5, atol=1e-6)


def test_first_order_cuts_the_path_through_gradient_and_loss(rule):
    omega, theta = start(rule)
    batch = one(support(1), 0)
    gradient, value = torch.func.grad_and_value(LOSS)(theta, batch)

    def adapted(theta):
        return adapt(LOSS, rule, omega, theta, [batch])[-1].square().sum()

    def with_constants(theta):
        return rule.step(omega, theta, gradient, value, rule.initial_state(theta))[0].square().sum()

    whole, cut = (torch.func.grad(f)(theta) for f in (adapted, with_constants))
    assert torch.allclose(whole, cut, rtol=1e-5, atol=1e-7) == rule.first_order


def test_description_survives_storage(rule):
    assert from_dict(json.loads(json.dumps(rule.to_dict()))) == rule
