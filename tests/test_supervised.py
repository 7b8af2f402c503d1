import pytest
import torch

from metalib.losses import MeanSquaredError
from metalib.meta_training import supervised
from metalib.meta_training.adam import Adam
from metalib.meta_training.divergence import DivergenceError
from metalib.meta_training.objectives import LossWithoutAdaptation, QueryLossAfterAdaptation
from metalib.meta_training.supervised import initial_state, meta_gradient, stack_seeds, train
from metalib.networks import MLP
from metalib.randomness import generator
from metalib.tasks import Sinusoid
from metalib.update_rules import GradientDescent

ARCHITECTURE = MLP((1, 10, 1))
LOSS = MeanSquaredError(ARCHITECTURE.network())
OBJECTIVE = QueryLossAfterAdaptation(LOSS, GradientDescent(0.01), 1)


def phi(seeds):
    return torch.stack([ARCHITECTURE.initial_theta(generator(s, "initial theta"), 0.3) for s in seeds])


def draw(seeds):
    def chunk(first, count):
        episodes = [Sinusoid().draw_episodes(generator(s, "training", first), (count, 4), 5, 5) for s in seeds]
        return stack_seeds(episodes, "cpu")

    return chunk


def run(seeds, steps, learning_rate=0.01):
    adam = Adam(learning_rate)
    return list(train(OBJECTIVE, adam, initial_state(phi(seeds), adam), draw(seeds), steps, seeds))


def test_training_lowers_the_loss():
    frozen = draw((0,))(0, 1)

    def same_tasks_each_step(first, count):
        return torch.utils._pytree.tree_map(lambda leaf: leaf.expand(count, *leaf.shape[1:]), frozen)

    chunks = list(train(OBJECTIVE, Adam(0.02), initial_state(phi((0,)), Adam()), same_tasks_each_step, 200, (0,)))
    assert chunks[-1].losses[-1] < 0.5 * chunks[0].losses[0]


def test_chunks_cover_exactly_the_steps_asked_for():
    chunks = run((0,), 250)
    assert [chunk.steps for chunk in chunks] == [100, 200, 250]
    assert [len(chunk.losses) for chunk in chunks] == [100, 100, 50]


def test_seeds_are_independent_runs():
    together = run((0, 5), 20)[-1].state.phi
    for row, seed in enumerate((0, 5)):
        torch.testing.assert_close(together[row], run((seed,), 20)[-1].state.phi[0], rtol=1e-4, atol=1e-6)


def test_same_seed_same_bytes():
    assert torch.equal(run((3,), 30)[-1].state.phi, run((3,), 30)[-1].state.phi)


def test_the_meta_gradient_is_the_mean_over_tasks():
    theta = phi((0,))
    episodes = stack_seeds([Sinusoid().draw_episodes(generator(0, "x"), (1, 4), 5, 5)], "cpu")
    data = torch.utils._pytree.tree_map(lambda leaf: leaf[0], episodes)
    gradient, value = meta_gradient(OBJECTIVE, theta, data)
    singles = []
    for task in range(4):
        one = torch.utils._pytree.tree_map(lambda leaf, t=task: leaf[:, t : t + 1], data)
        singles.append(meta_gradient(OBJECTIVE, theta, one))
    torch.testing.assert_close(gradient, torch.stack([g for g, _ in singles]).mean(0), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(value, torch.stack([v for _, v in singles]).mean(0))


def test_without_inner_steps_it_is_plain_training():
    theta = phi((0,))
    data = Sinusoid().draw_episodes(generator(0, "x"), (1, 4), 5, 5)
    no_steps = QueryLossAfterAdaptation(LOSS, GradientDescent(0.01), 0)
    expected = meta_gradient(LossWithoutAdaptation(LOSS), theta, data.query)
    assert all(torch.equal(a, b) for a, b in zip(meta_gradient(no_steps, theta, data), expected, strict=True))


def test_nan_stops_training_with_step_seed_and_likely_cause():
    seeds = (4, 9)

    def poisoned(first, count):
        episodes = draw(seeds)(first, count)
        if first == 100:
            episodes.query.y[17, 1] = float("nan")
        return episodes

    training = train(OBJECTIVE, Adam(), initial_state(phi(seeds), Adam()), poisoned, 300, seeds)
    assert next(training).steps == supervised.CHUNK_STEPS
    with pytest.raises(
        DivergenceError, match=r"loss of seed 9 is nan at step 117; the likely cause is a learning_rate"
    ):
        next(training)


def test_a_resumed_run_gives_the_same_bytes():
    whole = run((0, 5), 250)
    middle = whole[0]
    resumed = list(train(OBJECTIVE, Adam(0.01), middle.state, draw((0, 5)), 250, (0, 5), first_step=middle.steps))
    assert [chunk.steps for chunk in resumed] == [200, 250]
    for mine, theirs in zip(
        torch.utils._pytree.tree_leaves(resumed[-1].state),
        torch.utils._pytree.tree_leaves(whole[-1].state),
        strict=True,
    ):
        assert torch.equal(mine, theirs)
