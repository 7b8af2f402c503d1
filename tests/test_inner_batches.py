"""Inner steps on the whole support, or each on a part of it."""

import pytest
import torch

from metalib.losses import Batch, Episode, MeanSquaredError, MinibatchEpisode, draw_order
from metalib.meta_training.objectives import QueryLossAfterAdaptation
from metalib.meta_training.supervised import meta_gradient
from metalib.networks import MLP
from metalib.randomness import generator
from metalib.tasks import Sinusoid
from metalib.update_rules import GradientDescent

ARCHITECTURE = MLP((1, 6, 1))
LOSS = MeanSquaredError(ARCHITECTURE.network())
RULE = GradientDescent(0.02)


def theta():
    return ARCHITECTURE.initial_theta(generator(0, "theta"), 0.5)


def episodes(*shape):
    return Sinusoid().draw_episodes(generator(0, "episodes"), shape, 6, 5)


def test_drawn_examples_are_distinct_and_every_one_is_equally_likely():
    order = draw_order(generator(0, "order"), (2000,), 3, 2, 5)
    assert order.shape == (2000, 3, 2)
    assert bool((order[..., 0] != order[..., 1]).all())
    shares = torch.bincount(order.flatten(), minlength=5) / order.numel()
    assert bool(((shares - 0.2).abs() < 0.02).all())


@pytest.mark.parametrize("size", [0, 6])
def test_a_batch_larger_than_the_support_is_refused(size):
    with pytest.raises(ValueError, match=f"from 1 to 5 of the support examples, got {size}"):
        draw_order(generator(0, "order"), (), 1, size, 5)


def test_parts_are_taken_in_the_order_given():
    episode = episodes()
    order = torch.tensor([[3, 0], [5, 5]])
    batches = MinibatchEpisode(episode.support, episode.query, order).inner_batches(2)
    assert torch.equal(batches[0].x, episode.support.x[[3, 0]])
    assert torch.equal(batches[1].y, episode.support.y[[5, 5]])


def test_parts_that_are_the_whole_change_nothing():
    whole = episodes(1, 4)
    order = torch.arange(6).expand(1, 4, 3, 6)
    objective = QueryLossAfterAdaptation(LOSS, RULE, 3)
    expected = meta_gradient(objective, theta()[None], whole)
    found = meta_gradient(objective, theta()[None], MinibatchEpisode(whole.support, whole.query, order))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_each_step_descends_on_its_own_part():
    episode, order = episodes(), torch.tensor([[0, 1], [4, 2]])
    at = theta()
    for row in order:
        part = Batch(episode.support.x[row], episode.support.y[row])
        at = at - 0.02 * torch.func.grad(LOSS)(at, part)
    expected = LOSS(at, episode.query)
    objective = QueryLossAfterAdaptation(LOSS, RULE, 2)
    torch.testing.assert_close(objective(theta(), MinibatchEpisode(episode.support, episode.query, order)), expected)
    assert not torch.allclose(objective(theta(), Episode(*episode)), expected)
