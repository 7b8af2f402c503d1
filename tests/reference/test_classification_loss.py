"""Cross-entropy against its formula, and the loss that the talk prints, which fails."""

import pytest
import torch

from metalib.adaptation import adapt
from metalib.losses import Batch, CrossEntropy, error_rate
from metalib.networks import MLP
from metalib.randomness import generator
from metalib.update_rules import GradientDescent

NETWORK = MLP((2, 2)).network()
RULE = GradientDescent(0.5)


def separable():
    """Two classes on either side of a line."""
    x = torch.randn(200, 2, generator=generator(0, "x"))
    x = x[x[:, 0].abs() > 0.3]
    return Batch(x, (x[:, 0] > 0).long())


def printed(theta, batch):
    """y log f - (1 - y) log(1 - f), with f the probability of class 1; the slides' loss."""
    log_f = torch.log_softmax(NETWORK(theta, batch.x), dim=-1)
    y = batch.y.to(log_f.dtype)
    return (y * log_f[:, 1] - (1 - y) * log_f[:, 0]).mean()


def error_after_training(loss):
    theta = torch.randn(NETWORK.n_parameters, generator=generator(0, "theta")) * 0.1
    batch = separable()
    return error_rate(NETWORK)(adapt(loss, RULE, torch.zeros(0), theta, [batch] * 200)[-1], batch).item()


def test_cross_entropy_learns_what_the_printed_loss_cannot_in_either_direction():
    assert error_after_training(CrossEntropy(NETWORK)) < 0.02
    # Lowered, it drives every f to 0; raised, every f to 1: one class is always wrong.
    assert error_after_training(printed) > 0.4
    assert error_after_training(lambda theta, batch: -printed(theta, batch)) > 0.4


def test_cross_entropy_is_minus_y_log_f_minus_1_minus_y_log_1_minus_f():
    theta = torch.randn(NETWORK.n_parameters, generator=generator(1, "theta"), dtype=torch.float64)
    batch = Batch(separable().x.double(), separable().y)
    f = torch.softmax(NETWORK(theta, batch.x), dim=-1)[:, 1]
    y = batch.y.double()
    expected = -(y * f.log() + (1 - y) * (1 - f).log()).mean()
    torch.testing.assert_close(CrossEntropy(NETWORK)(theta, batch), expected)


def test_an_output_that_is_no_number_is_an_error():
    theta = torch.full((NETWORK.n_parameters,), torch.nan)
    assert error_rate(NETWORK)(theta, separable()).item() == 1


@pytest.mark.parametrize("n_classes", [2, 5])
def test_the_error_rate_counts(n_classes):
    network = MLP((n_classes, n_classes)).network()
    identity = network.flatten({"0.weight": torch.eye(n_classes), "0.bias": torch.zeros(n_classes)})
    x = torch.eye(n_classes)
    assert error_rate(network)(identity, Batch(x, torch.arange(n_classes))).item() == 0
    assert error_rate(network)(identity, Batch(x, torch.zeros(n_classes).long())).item() == pytest.approx(
        1 - 1 / n_classes
    )
