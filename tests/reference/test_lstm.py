"""The LSTM meta-learner against a float64 computation written from the paper's equations, a coordinate at a time."""

import math

import numpy as np
import pytest
import torch

from metalib.adaptation import adapt
from metalib.losses import Batch, Episode, MeanSquaredError
from metalib.meta_training.objectives import QueryLossAfterAdaptation
from metalib.meta_training.supervised import meta_gradient
from metalib.networks import MLP
from metalib.randomness import generator
from metalib.tasks import Sinusoid
from metalib.update_rules import GradientDescent, LSTMRule
from metalib.update_rules.lstm import preprocess

ARCHITECTURE = MLP((1, 4, 1))
LOSS = MeanSquaredError(ARCHITECTURE.network())
STEPS = 4


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def inputs_of(x):
    """Section 3.3: two numbers for each."""
    if abs(x) >= math.exp(-10):
        return [math.log(abs(x)) / 10, math.copysign(1.0, x)]
    return [-1.0, math.exp(10) * x]


class Reference:
    """One coordinate at a time, lists of Python floats; shares no code with metalib."""

    def __init__(self, omega, hidden_size, logits):
        h = self.h = hidden_size
        cuts = np.cumsum([4 * 4 * h, h * 4 * h, 4 * h, h + 2, 1, h + 2])
        wx, wh, b, wf, bf, wi, bi = np.split(np.asarray(omega, dtype=np.float64), cuts)
        self.wx, self.wh, self.b = wx.reshape(4, 4 * h), wh.reshape(h, 4 * h), b
        self.gates = {"f": (wf, bf[0]), "i": (wi, bi[0])}
        self.logits = logits

    def coordinate(self, gradient, loss, theta, memory):
        hidden, cell, last = memory
        x = inputs_of(gradient) + inputs_of(loss)
        z = [
            sum(x[r] * self.wx[r, c] for r in range(4))
            + sum(hidden[r] * self.wh[r, c] for r in range(self.h))
            + self.b[c]
            for c in range(4 * self.h)
        ]
        i, f, g, o = (z[k * self.h : (k + 1) * self.h] for k in range(4))
        cell = [sigmoid(f[k]) * cell[k] + sigmoid(i[k]) * math.tanh(g[k]) for k in range(self.h)]
        hidden = [sigmoid(o[k]) * math.tanh(cell[k]) for k in range(self.h)]
        gate, told = {}, {}
        for name, (w, bias) in self.gates.items():
            z = sum(w[k] * hidden[k] for k in range(self.h)) + w[self.h] * theta + w[self.h + 1] * last[name] + bias
            gate[name] = sigmoid(z)
            told[name] = z if self.logits else gate[name]
        return gate["f"] * theta - gate["i"] * gradient, (hidden, cell, told)


def reference_path(rule, omega, theta, gradient_and_loss, steps):
    reference = Reference(omega, rule.hidden_size, rule.feedback == "logits")
    memories = [([0.0] * rule.hidden_size, [0.0] * rule.hidden_size, {"f": 0.0, "i": 0.0}) for _ in theta]
    path = [list(theta)]
    for _ in range(steps):
        gradient, loss = gradient_and_loss(path[-1])
        moved = [reference.coordinate(g, loss, t, m) for g, t, m in zip(gradient, path[-1], memories, strict=True)]
        path.append([t for t, _ in moved])
        memories = [m for _, m in moved]
    return np.array(path)


def start(rule, spread=30.0):
    """Weights far from their small initial values, so that every term counts."""
    omega = rule.initial_omega(generator(0, "omega")).double()
    first = rule.n_omega - 2 * (rule.hidden_size + 3)
    omega[:first] *= spread
    omega[first:] += 0.3 * torch.randn(rule.n_omega - first, generator=generator(1, "gates"), dtype=torch.float64)
    return omega, ARCHITECTURE.initial_theta(generator(0, "theta"), 0.5).double()


def support():
    _, batch = Sinusoid().draw_examples(generator(0, "support"), (), 5)
    return Batch(batch.x.double(), batch.y.double())


@pytest.mark.parametrize("feedback", ["gates", "logits"])
def test_equals_the_equations_step_by_step(feedback):
    rule, batch = LSTMRule(hidden_size=3, feedback=feedback), support()
    omega, theta = start(rule)

    def gradient_and_loss(values):
        at = torch.tensor(values, dtype=torch.float64, requires_grad=True)
        w1, b1, w2, b2 = at.split([4, 4, 4, 1])
        loss = ((torch.relu(batch.x * w1 + b1) @ w2[:, None] + b2 - batch.y) ** 2).mean()
        return torch.autograd.grad(loss, at)[0].tolist(), loss.item()

    ours = torch.stack(adapt(LOSS, rule, omega, theta, [batch] * STEPS))
    expected = reference_path(rule, omega.tolist(), theta.tolist(), gradient_and_loss, STEPS)
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-12, atol=1e-14)
    assert abs(expected[-1] - expected[0]).max() > 0.01


def test_feedback_of_logits_is_another_rule():
    batch, paths = support(), []
    for feedback in ("gates", "logits"):
        rule = LSTMRule(hidden_size=3, feedback=feedback)
        omega, theta = start(rule)
        paths.append(adapt(LOSS, rule, omega, theta, [batch] * 2))
    assert torch.equal(paths[0][1], paths[1][1])  # nothing to feed back yet
    assert (paths[0][2] - paths[1][2]).abs().max() > 1e-3


def test_frozen_gates_are_gradient_descent_exactly():
    rule = LSTMRule()
    omega = torch.zeros(rule.n_omega)
    omega[-(rule.hidden_size + 4)] = 40.0  # b_F: sigmoid(40) is 1 in float32
    omega[-1] = -4.0  # b_I
    theta = ARCHITECTURE.initial_theta(generator(0, "theta"), 0.5)
    batch = Batch(*(part.float() for part in support()))
    rate = torch.sigmoid(torch.tensor(-4.0)).item()
    ours = adapt(LOSS, rule, omega, theta, [batch] * 5)
    theirs = adapt(LOSS, GradientDescent(rate), torch.zeros(0), theta, [batch] * 5)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_preprocessing_at_and_beside_the_branch_point():
    edge = math.exp(-10)
    x = torch.tensor([edge, edge * 0.999999, -edge * 1.000001, 0.0, -2.0, 1e-30], dtype=torch.float64)
    expected = torch.tensor([inputs_of(v) for v in x.tolist()], dtype=torch.float64)
    torch.testing.assert_close(preprocess(x), expected, rtol=1e-12, atol=0)
    # Both branches meet: (-1, 1) at e^-10.
    torch.testing.assert_close(preprocess(x)[0], preprocess(x)[1], rtol=1e-5, atol=0)


def test_preprocessing_has_finite_derivatives_everywhere():
    x = torch.tensor([0.0, 1e-38, 1e-6, -3.0], dtype=torch.float64, requires_grad=True)
    (derivative,) = torch.autograd.grad(preprocess(x).sum(), x)
    expected = [math.exp(10), math.exp(10), math.exp(10), 1 / (10 * -3.0)]
    torch.testing.assert_close(derivative, torch.tensor(expected, dtype=torch.float64))


def test_initial_gates_are_near_gradient_descent():
    rule = LSTMRule()
    theta = ARCHITECTURE.initial_theta(generator(0, "theta"), 0.5)
    omega = rule.initial_omega(generator(0, "omega"))
    _, state = rule.step(omega, theta, torch.ones_like(theta), torch.tensor(1.0), rule.initial_state(theta))
    forget, input_ = rule.gates(state)
    assert forget.min() > 0.97 and forget.max() < 1  # sigmoid(4) to sigmoid(5)
    assert input_.min() > 0.006 and input_.max() < 0.019


def test_input_bias_is_where_the_rate_starts():
    rule = LSTMRule(input_bias=(1.0, 2.0))
    bias = [rule.initial_omega(generator(seed, "omega"))[-1].item() for seed in range(200)]
    assert 1.0 <= min(bias) < 1.1 and 1.9 < max(bias) <= 2.0
    papers = LSTMRule().initial_omega(generator(0, "omega"))
    assert torch.equal(rule.initial_omega(generator(0, "omega"))[:-1], papers[:-1])  # all else starts as in the paper


@pytest.mark.parametrize("bias", [(1.0, 1.0), (2.0, 1.0), (0.0, math.inf), (math.nan, 1.0), (1.0,)])
def test_input_bias_must_be_a_range(bias):
    with pytest.raises(ValueError, match=r"input_bias must be two finite numbers, the lower first, got \("):
        LSTMRule(input_bias=bias)


def _meta_gradient(rule, omega, theta, learned_start=True):
    numbers = generator(0, "episodes")
    episode = Sinusoid().draw_episodes(numbers, (1, 3), 5, 6)
    support, query = (Batch(batch.x.double(), batch.y.double()) for batch in episode)
    objective = QueryLossAfterAdaptation(LOSS, rule, 3, learned_start)
    phi = torch.cat([theta, omega])[None]
    gradient, value = meta_gradient(objective, phi, Episode(support, query))
    return gradient[0], value[0], lambda phi: meta_gradient(objective, phi[None], Episode(support, query))[1][0]


def test_exact_meta_gradient_equals_finite_differences():
    rule = LSTMRule(hidden_size=3, first_order=False)
    omega, theta = start(rule)
    gradient, _, value = _meta_gradient(rule, omega, theta)
    phi, h = torch.cat([theta, omega]), 1e-6
    for index in (0, 3, len(theta) + 5, len(phi) - 1, len(phi) - 6):
        step = torch.zeros_like(phi)
        step[index] = h
        difference = (value(phi + step) - value(phi - step)) / (2 * h)
        torch.testing.assert_close(gradient[index], difference, rtol=2e-5, atol=1e-8)


def test_gradient_independence_gives_another_gradient_of_the_same_value():
    omega, theta = start(LSTMRule(hidden_size=3))
    exact, exact_value, _ = _meta_gradient(LSTMRule(hidden_size=3, first_order=False), omega, theta)
    independent, value, _ = _meta_gradient(LSTMRule(hidden_size=3), omega, theta)
    torch.testing.assert_close(value, exact_value, rtol=1e-12, atol=0)
    assert (independent - exact).norm() > 1e-3 * exact.norm()


def test_a_fixed_start_is_not_learned():
    rule = LSTMRule(hidden_size=3)
    omega, theta = start(rule)
    gradient, _, _ = _meta_gradient(rule, omega, theta, learned_start=False)
    assert bool((gradient[: len(theta)] == 0).all())
    assert bool((gradient[len(theta) :] != 0).any())
