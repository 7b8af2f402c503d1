"""The fused LSTM step against the plain rule in float64: values, derivatives, and the transforms of the inner loop."""

from functools import partial

import pytest
import torch
from torch.func import vmap
from torch.fx.experimental.proxy_tensor import make_fx

from metalib.adaptation import adapt
from metalib.compilation import can_compile, obstacle
from metalib.losses import Batch, Episode, MeanSquaredError
from metalib.meta_parameters import join
from metalib.meta_training.objectives import QueryLossAfterAdaptation
from metalib.meta_training.supervised import meta_gradient, stack_seeds
from metalib.networks import MLP
from metalib.randomness import generator
from metalib.tasks import Sinusoid
from metalib.update_rules import GradientDescent, LSTMRule, from_dict
from metalib.update_rules.fused_lstm import FusedLSTMRule, fused
from metalib.update_rules.lstm import LSTMState

RULES = [LSTMRule(h, feedback, first_order=False) for h in (1, 3, 20, 21) for feedback in ("gates", "logits")]
ARCHITECTURE = MLP((1, 7, 1))
LOSS = MeanSquaredError(ARCHITECTURE.network())
# float32 keeps 24 bits; a step adds some hundred rounded numbers, and a derivative of omega one for each coordinate.
TOLERANCE = 1e-5


@pytest.fixture(scope="module", name="folder")
def _folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kernels")
    if not can_compile(folder):
        pytest.skip(f"nothing can be compiled here, so there is no fused step to test: {obstacle(folder)}")
    return folder


def numbers(rule, n, batch=()):
    """Arguments of a step that make every term count: gradients over many scales, gates away from 0 and 1."""
    draw = partial(torch.randn, generator=generator(0, "numbers"))
    omega = rule.initial_omega(generator(0, "omega"))
    omega[: -2 * (rule.hidden_size + 3)] *= 30
    omega[-2 * (rule.hidden_size + 3) :] = 0.3 * draw(2 * (rule.hidden_size + 3))
    gradient = draw(*batch, n) * torch.exp(4 * draw(*batch, n))
    memory = (*batch, rule.hidden_size, n)
    told = [torch.sigmoid(x) if rule.feedback == "gates" else x for x in (draw(*batch, n), draw(*batch, n))]
    return omega, draw(*batch, n), gradient, 3 * draw(batch), [draw(memory).tanh(), draw(memory), *told]


def flat_step(rule, omega, theta, gradient, loss, state):
    """One step with the memory of the fused rule, whichever the rule."""
    turned = isinstance(rule, LSTMRule)
    hidden, cell, *told = state
    given = LSTMState(hidden.mT, cell.mT, *told) if turned else LSTMState(*state)
    theta, (hidden, cell, *told) = rule.step(omega, theta, gradient, loss, given)
    return theta, *((hidden.mT, cell.mT) if turned else (hidden, cell)), *told


def results_and_derivatives(rule, arguments, dtype):
    omega, theta, gradient, loss, state = arguments
    inputs = [x.detach().to(dtype).requires_grad_() for x in (omega, theta, gradient, loss, *state)]
    of_one = partial(flat_step, rule)
    step = vmap(of_one, in_dims=(None, 0, 0, 0, 0)) if theta.ndim == 2 else of_one
    results = step(*inputs[:4], inputs[4:])
    weights = generator(0, "weights")
    total = sum((result * torch.randn(result.shape, generator=weights)).sum() for result in results)
    return [*results, *torch.autograd.grad(total, inputs)]


def assert_close(ours, expected, tolerance=TOLERANCE, terms=0.0):
    """Compare relative to a tensor's largest number, or to ``terms``: what cancels keeps the rounding of its terms."""
    for index, (a, b) in enumerate(zip(ours, expected, strict=True)):
        assert a.dtype == torch.float32
        error = (a.double() - b).abs().max() / b.abs().max().clamp(min=terms)
        assert error < tolerance, f"tensor {index}: {error:.1e}"


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize(("n", "batch"), [(1, ()), (300, ()), (37, (3,))])
def test_step_and_all_derivatives(folder, rule, n, batch):
    arguments = numbers(rule, n, batch)
    ours = results_and_derivatives(fused(rule, folder), arguments, torch.float32)
    assert_close(ours, results_and_derivatives(rule, arguments, torch.float64), terms=0.1)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 20.0, 1e4])
def test_small_and_saturated_activations(folder, scale):
    rule = LSTMRule(3, first_order=False)
    omega, *others = numbers(rule, 200)
    arguments = (omega * scale, *others)
    ours = results_and_derivatives(fused(rule, folder), arguments, torch.float32)[:5]
    # Saturated, sigmoid and tanh still depend on sums whose own rounding grows with them.
    assert_close(ours, results_and_derivatives(rule, arguments, torch.float64)[:5], 1e-5 * max(1, scale / 100))


def test_sigmoid_and_tanh_to_a_few_units_in_the_last_place(folder):
    x = torch.cat([torch.linspace(-86, 86, 20_001), torch.logspace(-30, 1, 5_001), -torch.logspace(-30, 1, 5_001)])
    zero, one = torch.zeros_like(x), torch.tensor(1.0)
    # W_F passes theta on alone; the first layer's gates are shut or open, so that its output is tanh of its old cell.
    omega = torch.zeros(LSTMRule(1).n_omega)
    omega[20:24] = torch.tensor([-200.0, 200.0, 0.0, 200.0])
    omega[-7] = 1.0
    state = LSTMState(zero[None], x[None], zero, zero)
    _, new = fused(LSTMRule(1), folder).step(omega, x, zero, one, state)
    torch.testing.assert_close(new.forget.double(), x.double().sigmoid(), rtol=4e-7, atol=0)
    torch.testing.assert_close(new.hidden[0].double(), x.double().tanh(), rtol=4e-7, atol=0)


def meta_gradients(rule, dtype, seeds, tasks, learned_start=True):
    episodes = [Sinusoid().draw_episodes(generator(s, "episodes"), (1, tasks), 5, 6) for s in range(seeds)]
    support, query = (Batch(b.x[0].to(dtype), b.y[0].to(dtype)) for b in stack_seeds(episodes, "cpu"))
    phi = [
        join(ARCHITECTURE.initial_theta(generator(s, "theta"), 0.5), rule.initial_omega(generator(s, "omega")))
        for s in range(seeds)
    ]
    objective = QueryLossAfterAdaptation(LOSS, rule, 5, learned_start)
    return meta_gradient(objective, torch.stack(phi).to(dtype), Episode(support, query))


@pytest.mark.parametrize("feedback", ["gates", "logits"])
@pytest.mark.parametrize("first_order", [True, False])
@pytest.mark.parametrize(("seeds", "tasks"), [(1, 1), (1, 4), (3, 4)])
def test_meta_gradient_over_five_steps(folder, feedback, first_order, seeds, tasks):
    rule = LSTMRule(feedback=feedback, first_order=first_order)
    gradient, losses = meta_gradients(fused(rule, folder), torch.float32, seeds, tasks)
    expected, expected_losses = meta_gradients(rule, torch.float64, seeds, tasks)
    torch.testing.assert_close(losses.double(), expected_losses, rtol=1e-5, atol=0)
    # Of each seed by itself: omega's derivatives are much smaller than theta's.
    n = gradient.shape[1] - rule.n_omega
    for part in (slice(None, n), slice(n, None)):
        assert_close(list(gradient[:, part]), list(expected[:, part]), 1e-4)


def test_meta_gradient_of_a_fixed_start(folder):
    ours, _ = meta_gradients(fused(LSTMRule(3), folder), torch.float32, 2, 3, learned_start=False)
    expected, _ = meta_gradients(LSTMRule(3), torch.float64, 2, 3, learned_start=False)
    assert_close([ours], [expected], 1e-4)


def test_a_first_order_rule_has_no_derivative_of_gradient_and_loss(folder):
    omega, theta, gradient, loss, state = numbers(LSTMRule(3), 20)
    gradient.requires_grad_(), loss.requires_grad_()
    moved, _ = fused(LSTMRule(3), folder).step(omega.requires_grad_(), theta, gradient, loss, LSTMState(*state))
    found = torch.autograd.grad(moved.sum(), [gradient, loss], allow_unused=True)
    assert [derivative is None for derivative in found] == [True, True]


@pytest.mark.parametrize("first_order", [True, False])
def test_gradient_of_one_task_inside_vmap(folder, first_order):
    """torch.func.grad within vmap, where the backward pass itself is batched."""
    rule = LSTMRule(3, first_order=first_order)
    omega, theta, gradient, loss, state = numbers(rule, 20, (4,))

    def total(rule, *arguments):
        return sum((result * (2 + result)).sum() for result in flat_step(rule, *arguments))

    def each_task(rule, dtype):
        arguments = [x.to(dtype) for x in (omega, theta, gradient, loss)]
        of_task = torch.func.grad(partial(total, rule), argnums=(0, 1) if first_order else (0, 1, 2, 3))
        return vmap(of_task, in_dims=(None, 0, 0, 0, 0))(*arguments, [x.to(dtype) for x in state])

    assert_close(each_task(fused(rule, folder), torch.float32), each_task(rule, torch.float64))


@pytest.mark.parametrize("place", ["theta", "gradient", "loss", "hidden", "cell", "omega"])
def test_nan_passes_through(folder, place):
    rule = LSTMRule(3)
    omega, theta, gradient, loss, state = numbers(rule, 40)
    at = dict(zip(("omega", "theta", "gradient", "hidden", "cell"), (omega, theta, gradient, *state), strict=False))
    if place == "loss":
        loss = loss * torch.nan
    else:
        at[place].view(-1)[0] = torch.nan
    expected = flat_step(rule, omega, theta, gradient, loss, state)
    ours = flat_step(fused(rule, folder), omega, theta, gradient, loss, state)
    assert all(torch.equal(a.isnan(), b.isnan()) for a, b in zip(ours, expected, strict=True))
    assert any(bool(a.isnan().any()) for a in ours)


def test_same_inputs_give_the_same_bytes(folder):
    plain = LSTMRule(first_order=False)
    rule = fused(plain, folder)
    first, second = (meta_gradients(rule, torch.float32, 2, 3) for _ in range(2))
    assert torch.equal(first[0], second[0])
    arguments = numbers(plain, 37, (3,))
    together = results_and_derivatives(rule, arguments, torch.float32)
    omega, theta, gradient, loss, state = arguments
    alone = flat_step(rule, omega, theta[1], gradient[1], loss[1], [x[1] for x in state])
    assert all(torch.equal(a[1], b) for a, b in zip(together[:5], alone, strict=True))


def test_frozen_gates_are_gradient_descent(folder):
    rule = fused(LSTMRule(), folder)
    omega = torch.zeros(rule.n_omega)
    omega[-(LSTMRule().hidden_size + 4)] = 40.0  # b_F: sigmoid(40) is 1 in float32
    omega[-1] = -4.0  # b_I
    _, batch = Sinusoid().draw_examples(generator(0, "support"), (), 5)
    theta = ARCHITECTURE.initial_theta(generator(0, "theta"), 0.5)
    ours = adapt(LOSS, rule, omega, theta, [batch] * 5)
    theirs = adapt(LOSS, GradientDescent(torch.sigmoid(torch.tensor(-4.0)).item()), torch.zeros(0), theta, [batch] * 5)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


def test_other_numbers_are_left_to_the_plain_rule(folder):
    rule = LSTMRule(3, first_order=False)
    arguments = numbers(rule, 20)
    ours = results_and_derivatives(fused(rule, folder), arguments, torch.float64)
    expected = results_and_derivatives(rule, arguments, torch.float64)
    assert all(torch.equal(a, b) for a, b in zip(ours, expected, strict=True))


def test_traced_programs_hold_the_plain_rule(folder):
    rule = LSTMRule(3)
    arguments = numbers(rule, 20)
    program = make_fx(partial(flat_step, fused(rule, folder)))(*arguments)
    omega, *others = arguments
    assert_close(program(2 * omega, *others), flat_step(rule, 2 * omega, *others), 1e-6)


def test_artefacts_do_not_know_it(folder):
    rule = LSTMRule(3, "logits")
    assert isinstance(fused(rule, folder), FusedLSTMRule)
    assert from_dict(fused(rule, folder).to_dict()) == rule


def test_other_shapes_are_refused(folder):
    plain = LSTMRule(3)
    rule = fused(plain, folder)
    omega, theta, gradient, loss, (hidden, *state) = numbers(plain, 20)
    with pytest.raises(ValueError, match=r"hidden \(20, 3\), not \(3, 20\)"):
        rule.step(omega, theta, gradient, loss, LSTMState(hidden.mT, *state))


def test_without_a_compiler_the_rule_stays_as_it_is(monkeypatch, tmp_path):
    monkeypatch.setattr("metalib.compilation.native.compiler", lambda: None)
    assert fused(LSTMRule(), tmp_path) == LSTMRule()
