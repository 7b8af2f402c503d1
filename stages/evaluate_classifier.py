"""Evaluate a trained method on the frozen test episodes: its accuracy before and after each gradient step."""

from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from torch import Tensor

from metalib.config import EvaluateClassifierSettings
from metalib.evaluation import adaptation_scores, choose_rate, gate_quantiles
from metalib.losses import Batch, Episode, cross_entropy, error_rate
from metalib.metric_learning import prototype_predictions
from metalib.networks import Architecture, with_new_head
from metalib.score_files import (
    GATES_SCHEMA,
    IMAGE_ILLUSTRATION_SCHEMA,
    RATES_SCHEMA,
    Accuracies,
    save_accuracies,
)
from metalib.storage import StorageError, save_tensors, write_checked_json
from metalib.tasks.image_tasks import Condition, load_frozen_episodes, load_image_tasks
from metalib.trained_method import TrainedMethod
from metalib.update_rules import GradientDescent, LSTMRule, UpdateRule
from stages.image_networks import image_network
from stages.jobs import Control, Job, run_jobs, worker_count
from stages.running import PARAMS, ParamsOption, Run, stage
from stages.update_rules import evaluation_rule

N_ILLUSTRATIONS = 3
EPISODES_AT_ONCE = 20
"""Episodes in one vmapped block: fewer waste time starting operations, more do not fit the cache."""
GATE_EPISODES = 10
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


class Found(NamedTuple):
    """What evaluation found for one condition."""

    accuracies: Accuracies
    predicted: Tensor
    gates: dict[str, Tensor]
    rates: dict[str, float | None]


def main(
    dataset: Annotated[Path, typer.Argument(help="Image tasks of generate_image_tasks, e.g. data/images.")],
    trained: Annotated[Path, typer.Argument(help="Trained method, e.g. artifacts/images/maml.")],
    output: Annotated[Path, typer.Argument(help="Folder to write, e.g. artifacts/images/scores/maml.")],
    params: ParamsOption = PARAMS,
) -> None:
    """Score a method in every condition of the image tasks (settings: evaluate_classifier).

    A baseline that is fine-tuned first chooses its rate on the validation episodes. Writes scores.safetensors
    (accuracies by seed, episode and gradient step), illustrations.safetensors (predictions on the first
    episodes), rates.json and, for the LSTM meta-learner, gates.safetensors (its gates at each step).
    """
    with stage(f"evaluate_classifier@{trained.name}", params) as run, run.output(output) as folder:
        tasks = load_image_tasks(dataset)
        paths = {condition: _weights(trained, condition) for condition in tasks.conditions}
        methods = {condition: TrainedMethod.load(path) for condition, path in paths.items()}
        jobs = [
            Job(f"{trained.name}, {c.way}-way {c.shot}-shot", 2, evaluate, (run, paths[c], dataset, c))
            for c in tasks.conditions
        ]
        found: list[Found] = run_jobs(jobs, worker_count(run.machine, len(jobs)), "parts")
        names = [condition.name for condition in tasks.conditions]
        accuracies = [each.accuracies for each in found]
        settings = next(iter(methods.values())).settings
        save_accuracies(folder / "scores.safetensors", accuracies, tasks.dataset, settings)
        predicted = {name: each.predicted for name, each in zip(names, found, strict=True)}
        axes = {"axes": ["episode", "gradient_step", "query"]}
        save_tensors(folder / "illustrations.safetensors", IMAGE_ILLUSTRATION_SCHEMA, predicted, axes)
        tried = {name: each.rates for name, each in zip(names, found, strict=True) if each.rates}
        write_checked_json(folder / "rates.json", RATES_SCHEMA, tried)
        gates = {f"{n}-{gate}": q for n, each in zip(names, found, strict=True) for gate, q in each.gates.items()}
        if gates:
            header = {"quantiles": list(QUANTILES), "episodes": min(GATE_EPISODES, accuracies[0].values.shape[1])}
            save_tensors(folder / "gates.safetensors", GATES_SCHEMA, gates, header)


def _weights(trained: Path, condition: Condition) -> Path:
    """Return where a condition's weights lie: a file of their own, or one for all conditions."""
    for path in (trained / f"{condition.name}.safetensors", trained / "weights.safetensors"):
        if path.is_file():
            return path
    raise StorageError(f"{trained} holds no weights for {condition.name}; run the stage that writes it (`dvc repro`)")


def evaluate(run: Run, path: Path, dataset: Path, condition: Condition, control: Control) -> Found:
    """Evaluate one trained method in one condition."""
    control.advance(0)
    method, test = TrainedMethod.load(path), load_frozen_episodes(dataset, "test", condition)
    if method.method == "prototypical":
        network = method.architecture.network()
        predicted = prototype_predictions(network, condition.way, method.phi, test, EPISODES_AT_ONCE)[:, :, None]
        return _found(method, condition, None, test, predicted, {}, {})
    architecture, phi = _with_head(run, method, dataset, condition)
    rule, rates = _rule(run.params.evaluate_classifier, method, architecture, phi, dataset, condition)
    control.advance(1)
    predicted = _predictions(architecture, phi, evaluation_rule(rule, run.machine), test, run)
    gates = {}
    if isinstance(rule, LSTMRule):
        loss, support = cross_entropy(architecture.network()), _first(test.support, GATE_EPISODES)
        gates = gate_quantiles(loss, rule, phi[0], support, method.inner_steps, QUANTILES)
    control.advance(2)
    return _found(method, condition, rule, test, predicted, gates, rates)


def _found(
    method: TrainedMethod,
    condition: Condition,
    rule: UpdateRule | None,
    test: Episode,
    predicted: Tensor,
    gates: dict[str, Tensor],
    rates: dict[str, float | None],
) -> Found:
    """Return what evaluation found, from the predicted classes ``[seeds, episodes, steps + 1, n_query]``."""
    values = (predicted == test.query.y[:, None]).float().mean(-1)
    train_steps = method.inner_steps if method.rule else None
    accuracies = Accuracies(method.method, *condition, train_steps, getattr(rule, "rate", None), values)
    return Found(accuracies, predicted[0, :N_ILLUSTRATIONS], gates, rates)


def _with_head(run: Run, method: TrainedMethod, dataset: Path, condition: Condition) -> tuple[Architecture, Tensor]:
    """Return network and meta-parameters for the condition's classes; baselines get a new head, of zeros."""
    if method.rule is not None:
        return method.architecture, method.phi
    image_shape = load_image_tasks(dataset).image_shape
    new = image_network(run.params.image_network, image_shape, condition.way)
    return new, with_new_head(method.phi, method.architecture, new)


def _rule(
    settings: EvaluateClassifierSettings,
    method: TrainedMethod,
    architecture: Architecture,
    phi: Tensor,
    dataset: Path,
    condition: Condition,
) -> tuple[UpdateRule, dict[str, float | None]]:
    """Return the method's own rule, or gradient descent at the rate that is best on the validation episodes."""
    if method.rule is not None:
        return method.rule, {}
    validation, network = load_frozen_episodes(dataset, "validation", condition), architecture.network()
    rate, errors = choose_rate(
        cross_entropy(network),
        settings.finetune_rates,
        phi,
        validation.support,
        validation.query,
        settings.gradient_steps,
        diverged_above=1.0,
        score=error_rate(network),
        tasks_at_once=EPISODES_AT_ONCE,
    )
    return GradientDescent(rate), {"chosen": rate, **{f"{r:g}": error for r, error in errors.items()}}


def _predictions(architecture: Architecture, phi: Tensor, rule: UpdateRule, test: Episode, run: Run) -> Tensor:
    """Return the predicted class of every query image after each step, ``[seeds, episodes, steps + 1, n_query]``."""
    network, steps = architecture.network(), run.params.evaluate_classifier.gradient_steps

    def predicted_class(theta: Tensor, batch: Batch) -> Tensor:
        return network(theta, batch.x).argmax(-1)

    loss = cross_entropy(network)
    (predicted,) = adaptation_scores(
        loss, rule, phi, test.support, [test.query], steps, predicted_class, EPISODES_AT_ONCE
    )
    return predicted


def _first(batch: Batch, n: int) -> Batch:
    return Batch(batch.x[:n], batch.y[:n])


if __name__ == "__main__":
    typer.run(main)
