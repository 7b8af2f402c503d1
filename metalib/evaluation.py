"""How well methods adapt to held-out tasks: scores by seed, task and gradient step."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.func import vmap

from metalib.adaptation import adapt, inner_steps
from metalib.losses import LOSSES, Batch, Loss
from metalib.meta_parameters import split
from metalib.trained_method import Learner
from metalib.update_rules import GradientDescent, LSTMRule, UpdateRule

TASKS_AT_ONCE = 100
"""Tasks evaluated in one vmapped block: bounds memory; results do not depend on it."""

Advance = Callable[[int], object]
"""Told after every block how many tasks it held."""


def _ignore(tasks: int) -> None:
    pass


def adaptation_scores(
    loss: Loss,
    rule: UpdateRule,
    phi: Tensor,
    support: Batch,
    queries: Sequence[Batch],
    steps: int,
    score: Loss | None = None,
    tasks_at_once: int = TASKS_AT_ONCE,
    advance: Advance = _ignore,
) -> list[Tensor]:
    """Return the score on the query after 0, 1, ..., ``steps`` inner steps, for every seed and task.

    Args:
        loss: what adaptation lowers.
        rule: the update rule.
        phi: meta-parameters of every seed, ``[seeds, n_phi]``.
        support: what is adapted on, x and y ``[tasks, k, ...]``.
        queries: sets to be judged on, x and y ``[tasks, n, ...]`` each.
        steps: inner steps on the whole support.
        score: what a query is judged by; the loss if None.
        tasks_at_once: tasks in one vmapped block.
        advance: told how many tasks were evaluated, seed by seed.

    Returns:
        for each query set, scores ``[seeds, tasks, steps + 1]``.
    """
    judge = loss if score is None else score

    def one_task(phi: Tensor, support: Batch, queries: list[Batch]) -> list[Tensor]:
        thetas = _iterates(loss, rule, phi, support, steps)
        return [torch.stack([judge(theta, query) for theta in thetas]) for query in queries]

    return _over_seeds_and_tasks(one_task, phi, support, queries, tasks_at_once, advance)


def final_scores(
    loss: Loss,
    rule: UpdateRule,
    phi: Tensor,
    support: Batch,
    query: Batch,
    steps: int,
    score: Loss | None = None,
    tasks_at_once: int = TASKS_AT_ONCE,
    advance: Advance = _ignore,
) -> Tensor:
    """Return the last column of :func:`adaptation_scores`, ``[seeds, tasks]``, without computing the others.

    The arguments are those of :func:`adaptation_scores`, with one ``query`` set.
    """
    judge = loss if score is None else score

    def one_task(phi: Tensor, support: Batch, queries: list[Batch]) -> list[Tensor]:
        theta = _iterates(loss, rule, phi, support, steps)[-1]
        return [judge(theta, query) for query in queries]

    (scores,) = _over_seeds_and_tasks(one_task, phi, support, [query], tasks_at_once, advance)
    return scores


def _iterates(loss: Loss, rule: UpdateRule, phi: Tensor, support: Batch, steps: int) -> list[Tensor]:
    theta, omega = split(phi, rule)
    return adapt(loss, rule, omega, theta, [support] * steps)


def _over_seeds_and_tasks(
    one_task: Callable[[Tensor, Batch, list[Batch]], list[Tensor]],
    phi: Tensor,
    support: Batch,
    queries: Sequence[Batch],
    tasks_at_once: int,
    advance: Advance,
) -> list[Tensor]:
    """Return ``one_task`` of every seed and task, each of its results ``[seeds, tasks, ...]``; blocks are vmapped."""
    over_tasks = vmap(one_task, in_dims=(None, 0, 0))
    n_tasks = support.x.shape[0]
    rows = []
    for seed_phi in phi:
        blocks = []
        for start in range(0, n_tasks, tasks_at_once):
            block = slice(start, start + tasks_at_once)
            here = [_rows(query, block) for query in queries]
            blocks.append([part.detach() for part in over_tasks(seed_phi, _rows(support, block), here)])
            advance(min(tasks_at_once, n_tasks - start))
        rows.append([torch.cat(parts) for parts in zip(*blocks, strict=True)])
    return [torch.stack(parts) for parts in zip(*rows, strict=True)]


def _rows(batch: Batch, block: slice) -> Batch:
    return Batch(batch.x[block], batch.y[block])


def choose_rate(
    loss: Loss,
    rates: Sequence[float],
    theta: Tensor,
    support: Batch,
    query: Batch,
    steps: int,
    diverged_above: float,
    score: Loss | None = None,
    tasks_at_once: int = TASKS_AT_ONCE,
) -> tuple[float, dict[float, float]]:
    """Choose the rate of gradient descent that gives the lowest error after ``steps`` steps.

    To be called on validation tasks only. A rate at which any task of any seed diverges (its error is
    not finite or above ``diverged_above``) is passed over unless all are.

    Args:
        loss: the task's loss.
        rates: candidates.
        theta: where fine-tuning starts, ``[seeds, n_parameters]``.
        support, query: data of the validation tasks, ``[tasks, n, ...]``.
        steps: gradient steps.
        diverged_above: the largest error that counts as not diverged.
        score: the error; the loss if None.
        tasks_at_once: tasks in one vmapped block.

    Returns:
        the chosen rate, and for each rate the mean error over seeds and tasks (infinite where diverged).
    """
    final = [
        final_scores(loss, GradientDescent(rate), theta, support, query, steps, score, tasks_at_once) for rate in rates
    ]
    return best_rate(rates, final, diverged_above)


def best_rate(
    rates: Sequence[float], final: Sequence[Tensor], diverged_above: float
) -> tuple[float, dict[float, float]]:
    """Choose among rates as :func:`choose_rate` does, from the final errors ``[seeds, tasks]`` at each of them."""
    errors = {
        rate: errors.mean().item() if bool((errors <= diverged_above).all()) else float("inf")
        for rate, errors in zip(rates, final, strict=True)
    }
    return min(errors, key=lambda rate: (errors[rate], rate)), errors


def predictions(learner: Learner, support: Batch, x: Tensor, steps: int) -> Tensor:
    """Return what one learner predicts on each task after 0..``steps`` inner steps, ``[tasks, steps + 1, n]``.

    Args:
        learner: with a one-dimensional output.
        support: what is adapted on, x and y ``[tasks, k, ...]``.
        x: where to predict, ``[tasks, n, d_in]``.
        steps: the largest number of inner steps.
    """
    network = learner.architecture.network()
    loss = LOSSES[learner.loss](network)
    tasks = []
    for task_x, task_y, inputs in zip(support.x, support.y, x, strict=True):
        batches = [Batch(task_x, task_y)] * steps
        thetas = adapt(loss, learner.rule, learner.omega, learner.theta, batches)
        tasks.append(torch.stack([network(theta.detach(), inputs)[:, 0] for theta in thetas]))
    return torch.stack(tasks)


def gate_quantiles(
    loss: Loss, rule: LSTMRule, phi: Tensor, support: Batch, steps: int, quantiles: Sequence[float]
) -> dict[str, Tensor]:
    """Return how the gates of the LSTM rule are spread over coordinates and tasks at each inner step.

    Args:
        loss: the task's loss.
        rule: the update rule.
        phi: meta-parameters of one seed, ``[n_phi]``.
        support: what is adapted on, x and y ``[tasks, k, ...]``.
        steps: inner steps on the whole support.
        quantiles: which, in 0..1.

    Returns:
        "forget" and "input", each ``[steps, quantiles]``.
    """
    theta, omega = split(phi, rule)
    gates: dict[str, list[list[Tensor]]] = {"forget": [], "input": []}
    for x, y in zip(support.x, support.y, strict=True):
        states = [state for _, state in inner_steps(loss, rule, omega, theta, [Batch(x, y)] * steps)]
        gates["forget"].append([rule.gates(state)[0].detach() for state in states])
        gates["input"].append([rule.gates(state)[1].detach() for state in states])
    levels = torch.tensor(quantiles)
    return {
        name: torch.stack(
            [_quantiles(torch.cat([of_task[step] for of_task in tasks]), levels) for step in range(steps)]
        )
        for name, tasks in gates.items()
    }


def _quantiles(values: Tensor, levels: Tensor) -> Tensor:
    """Return empirical quantiles (nearest value); torch's own takes no more than 16 million numbers."""
    places = (levels * (len(values) - 1)).round().to(torch.int64)
    return values.sort().values[places]
