"""The task distribution against its analytic moments and the anchors of the literature."""

import math

import pytest
import torch

from metalib.randomness import generator
from metalib.tasks import Sinusoid, SinusoidTasks

N = 400_000


@pytest.fixture(scope="module", name="draws")
def _draws():
    family = Sinusoid()
    tasks, examples = family.draw_examples(generator(0, "moments"), (N,), 2)
    return family, tasks, examples


def test_a_hand_worked_case():
    tasks = SinusoidTasks(torch.tensor([2.0]), torch.tensor([math.pi / 6]))
    y = tasks.targets(torch.tensor([[[math.pi / 3], [math.pi / 6], [0.0]]]))
    torch.testing.assert_close(y, torch.tensor([[[1.0], [0.0], [-1.0]]]))


def test_oracle_is_told_x_amplitude_and_phase():
    tasks = SinusoidTasks(torch.tensor([2.0, 3.0]), torch.tensor([0.5, 0.7]))
    told = tasks.oracle_inputs(torch.tensor([[[1.0], [-1.0]], [[4.0], [0.0]]]))
    expected = torch.tensor([[[1.0, 2.0, 0.5], [-1.0, 2.0, 0.5]], [[4.0, 3.0, 0.7], [0.0, 3.0, 0.7]]])
    assert torch.equal(told, expected)


@pytest.mark.parametrize(("name", "low", "high"), [("amplitude", 0.1, 5.0), ("phase", 0.0, math.pi)])
def test_parameters_are_uniform(draws, name, low, high):
    values = getattr(draws[1], name).double()
    spread = (high - low) / math.sqrt(12)
    assert values.min() >= low
    assert values.max() <= high
    assert values.mean().item() == pytest.approx((low + high) / 2, abs=5 * spread / math.sqrt(N))
    assert values.std().item() == pytest.approx(spread, rel=0.01)


def test_inputs_are_uniform_and_independent_of_the_task(draws):
    _, tasks, examples = draws
    x = examples.x[:, 0, 0].double()
    assert x.abs().max() <= 5
    assert x.mean().item() == pytest.approx(0, abs=5 * 2.89 / math.sqrt(N))
    for other in (tasks.amplitude, tasks.phase, examples.x[:, 1, 0]):
        assert abs(torch.corrcoef(torch.stack([x, other.double()]))[0, 1]) < 5 / math.sqrt(N)


def test_zero_function_scores_4_252(draws):
    error = draws[2].y.double().square().flatten()
    # E[A^2] E[sin^2]; analytic value from the published anchors, tolerance: five standard errors.
    assert error.mean().item() == pytest.approx(4.252, abs=5 * error.std().item() / math.sqrt(N))


def test_best_non_adapting_function_scores_3_006(draws):
    family, _, examples = draws
    x, y = examples.x.double(), examples.y.double()
    torch.testing.assert_close(family.mean_function(x), -1.6234 * torch.cos(x), rtol=1e-4, atol=1e-6)
    error = (family.mean_function(x) - y).square().flatten()
    assert error.mean().item() == pytest.approx(3.006, abs=5 * error.std().item() / math.sqrt(N))


def test_no_scaled_cosine_does_better_than_the_mean_function(draws):
    x, y = (part.double() for part in draws[2])
    errors = [(scale * torch.cos(x) - y).square().mean() for scale in (-1.2, -1.623, -2.0)]
    assert min(errors) == errors[1]


@pytest.mark.parametrize("bounds", [(5.0, 1.0), (1.0, 1.0), (0.0, math.inf), (math.nan, 1.0)])
def test_impossible_ranges_are_refused(bounds):
    with pytest.raises(ValueError, match="amplitude must be two finite numbers"):
        Sinusoid(amplitude=bounds)
