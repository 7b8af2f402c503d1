import pytest
import torch

from metalib.adaptation import adapt
from metalib.evaluation import adaptation_scores, choose_rate, final_scores, predictions
from metalib.losses import Batch, MeanSquaredError
from metalib.networks import MLP
from metalib.randomness import generator
from metalib.storage import StorageError
from metalib.tasks import Sinusoid
from metalib.tasks.dataset import draw_task_set, first_points
from metalib.trained_method import Learner
from metalib.update_rules import GradientDescent

ARCHITECTURE = MLP((1, 8, 1))
LOSS = MeanSquaredError(ARCHITECTURE.network())
RULE = GradientDescent(0.02)


def phi(n_seeds):
    return torch.stack([ARCHITECTURE.initial_theta(generator(s, "initial theta"), 0.5) for s in range(n_seeds)])


def task_set(n_tasks):
    return draw_task_set(Sinusoid(), generator(0, "tasks"), n_tasks, 6, 12)


def test_scores_equal_a_plain_loop_over_seeds_tasks_and_steps():
    tasks = task_set(3)
    (scores,) = adaptation_scores(LOSS, RULE, phi(2), tasks.shots(5), [tasks.query], 4)
    assert scores.shape == (2, 3, 5)
    for seed, theta in enumerate(phi(2)):
        for task in range(3):
            support = Batch(tasks.support.x[task, :5], tasks.support.y[task, :5])
            query = Batch(tasks.query.x[task], tasks.query.y[task])
            thetas = adapt(LOSS, RULE, torch.zeros(0), theta, [support] * 4)
            expected = torch.stack([LOSS(theta, query) for theta in thetas])
            torch.testing.assert_close(scores[seed, task], expected, rtol=1e-5, atol=1e-6)


def test_blocks_of_tasks_do_not_change_scores():
    tasks = task_set(7)
    sizes: list[int] = []
    whole = adaptation_scores(LOSS, RULE, phi(1), tasks.support, [tasks.query], 2)[0]
    blocks = adaptation_scores(
        LOSS, RULE, phi(1), tasks.support, [tasks.query], 2, tasks_at_once=3, advance=sizes.append
    )[0]
    assert sizes == [3, 3, 1]
    torch.testing.assert_close(blocks, whole, rtol=1e-6, atol=1e-7)


def test_final_scores_are_the_last_of_all_and_judge_the_query_once():
    tasks, calls = task_set(3), []

    def counted(theta, batch):
        calls.append(batch.x.shape)
        return LOSS(theta, batch)

    every = adaptation_scores(LOSS, RULE, phi(2), tasks.shots(5), [tasks.query], 4)[0]
    last = final_scores(LOSS, RULE, phi(2), tasks.shots(5), tasks.query, 4, counted)
    assert torch.equal(last, every[..., -1])
    assert len(calls) == 2, "once a seed, all tasks being one block"


def test_each_query_set_is_scored_on_its_own():
    tasks = task_set(2)
    both = adaptation_scores(LOSS, RULE, phi(1), tasks.support, [tasks.query, first_points(tasks.query, 3)], 1)
    x, y = tasks.query.x[0, :3], tasks.query.y[0, :3]
    torch.testing.assert_close(both[1][0, 0, 0], LOSS(phi(1)[0], Batch(x, y)))
    assert not torch.allclose(both[0], both[1])


def test_the_rate_with_the_lowest_final_error_is_chosen_and_divergence_is_passed_over():
    tasks = task_set(20)
    rates = (1e-6, 0.02, 5.0)
    rate, errors = choose_rate(LOSS, rates, phi(2), tasks.support, tasks.query, 5, 100.0)
    assert rate == 0.02
    assert errors[5.0] == float("inf")
    (scores,) = adaptation_scores(LOSS, RULE, phi(2), tasks.support, [tasks.query], 5)
    assert errors[0.02] == pytest.approx(scores[..., -1].mean().item())


def test_predictions_are_those_of_the_adapted_learner():
    tasks = task_set(2)
    learner = Learner(ARCHITECTURE, "mean_squared_error", phi(1)[0], torch.zeros(0), RULE, 1)
    drawn = predictions(learner, tasks.support, tasks.query.x, 2)
    assert drawn.shape == (2, 3, 12)
    direct = learner.adapt(tasks.support.x[1], tasks.support.y[1], 2)(tasks.query.x[1])[:, 0]
    assert torch.equal(drawn[1, 2], direct)


def test_asking_for_more_points_than_stored_is_refused():
    with pytest.raises(StorageError, match="7 points asked for, but the task dataset holds 6"):
        task_set(2).shots(7)
