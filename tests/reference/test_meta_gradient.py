"""The meta-gradient against independent float64 computations: an explicit Hessian, and finite differences."""

import pytest
import torch

from metalib.losses import Batch, Episode, MeanSquaredError
from metalib.meta_training.objectives import QueryLossAfterAdaptation
from metalib.meta_training.supervised import meta_gradient
from metalib.networks import MLP
from metalib.randomness import generator
from metalib.tasks import Sinusoid
from metalib.update_rules import GradientDescent

ARCHITECTURE = MLP((1, 6, 5, 1))
NETWORK = ARCHITECTURE.network()
RATE = 0.05
N_SEEDS, N_TASKS = 2, 3


def double_data():
    theta = torch.stack(
        [
            torch.randn(NETWORK.n_parameters, generator=generator(s, "theta"), dtype=torch.float64)
            for s in range(N_SEEDS)
        ]
    )
    episodes = Sinusoid().draw_episodes(generator(0, "episodes"), (N_SEEDS, N_TASKS), 4, 7)
    support, query = (Batch(batch.x.double(), batch.y.double()) for batch in episodes)
    return theta, Episode(support, query)


def formula_loss(theta, x, y):
    """The network and its loss written out, sharing no code with metalib."""
    w1, b1, w2, b2, w3, b3 = theta.split([6, 6, 30, 5, 5, 1])
    hidden = torch.clamp(x * w1 + b1, min=0)
    hidden = torch.clamp(hidden @ w2.view(5, 6).T + b2, min=0)
    return ((hidden @ w3.view(1, 5).T + b3 - y) ** 2).mean()


def reference_meta_gradient(theta, episodes, seed, first_order):
    """Mean over tasks of (I - rate H)^T g, with H and g from plain autograd (Finn et al. 2017, section 2.2)."""
    total = torch.zeros_like(theta)
    for task in range(N_TASKS):
        sx, sy, qx, qy = (part[seed, task] for part in (*episodes.support, *episodes.query))
        inner = torch.autograd.functional.jacobian(lambda t, x=sx, y=sy: formula_loss(t, x, y), theta)
        hessian = torch.autograd.functional.hessian(lambda t, x=sx, y=sy: formula_loss(t, x, y), theta)
        outer = torch.autograd.functional.jacobian(lambda t, x=qx, y=qy: formula_loss(t, x, y), theta - RATE * inner)
        total += outer if first_order else outer - RATE * hessian.T @ outer
    return total / N_TASKS


@pytest.mark.parametrize("first_order", [False, True])
def test_one_inner_step_equals_the_explicit_hessian(first_order):
    theta, episodes = double_data()
    rule = GradientDescent(RATE, first_order)
    objective = QueryLossAfterAdaptation(MeanSquaredError(NETWORK), rule, 1)
    gradient, _ = meta_gradient(objective, theta, episodes)
    for seed in range(N_SEEDS):
        expected = reference_meta_gradient(theta[seed], episodes, seed, first_order)
        torch.testing.assert_close(gradient[seed], expected, rtol=1e-10, atol=1e-12)


def test_first_and_second_order_differ():
    theta, episodes = double_data()
    first, second = (
        meta_gradient(
            QueryLossAfterAdaptation(MeanSquaredError(NETWORK), GradientDescent(RATE, flag), 1),
            theta,
            episodes,
        )[0]
        for flag in (True, False)
    )
    assert (first - second).norm() > 0.01 * second.norm()


@pytest.mark.parametrize("inner_steps", [1, 3])
def test_second_order_equals_finite_differences(inner_steps):
    theta, episodes = double_data()
    objective = QueryLossAfterAdaptation(MeanSquaredError(NETWORK), GradientDescent(RATE), inner_steps)
    gradient, _ = meta_gradient(objective, theta, episodes)

    def adapted_loss(theta, seed):
        """Adaptation step by step with the written-out loss, no vmap, no metalib."""
        total = 0.0
        for task in range(N_TASKS):
            sx, sy, qx, qy = (part[seed, task] for part in (*episodes.support, *episodes.query))
            moved = theta.clone()
            for _ in range(inner_steps):
                moved = moved - RATE * torch.autograd.functional.jacobian(
                    lambda t, x=sx, y=sy: formula_loss(t, x, y), moved
                )
            total += formula_loss(moved, qx, qy)
        return total / N_TASKS

    h = 1e-6
    for seed in range(N_SEEDS):
        for index in range(3):
            direction = torch.randn(theta.shape[1], generator=generator(index, "direction"), dtype=torch.float64)
            up, down = (adapted_loss(theta[seed] + sign * h * direction, seed) for sign in (1, -1))
            torch.testing.assert_close(gradient[seed] @ direction, (up - down) / (2 * h), rtol=1e-6, atol=1e-8)


def test_the_printed_sum_loss_is_another_inner_step():
    """The paper prints a sum over K examples; with it the inner step is K times larger than with the mean."""
    theta, episodes = double_data()
    sx, sy = episodes.support.x[0, 0], episodes.support.y[0, 0]
    mean_gradient = torch.func.grad(lambda t: MeanSquaredError(NETWORK)(t, Batch(sx, sy)))(theta[0])
    sum_gradient = torch.func.grad(lambda t: ((NETWORK(t, sx) - sy) ** 2).sum())(theta[0])
    torch.testing.assert_close(sum_gradient, len(sx) * mean_gradient, rtol=1e-10, atol=1e-12)
