"""Evaluate a trained method on the frozen test episodes: its accuracy before and after each gradient step."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
import typer
from torch import Tensor

from metalib.evaluation import adaptation_scores, best_rate, final_scores, gate_quantiles
from metalib.losses import Batch, CrossEntropy, Episode, error_rate
from metalib.metric_learning import prototype_predictions
from metalib.networks import Architecture, with_new_head
from metalib.score_files import (
    GATES_SCHEMA,
    IMAGE_ILLUSTRATION_SCHEMA,
    RATES_SCHEMA,
    SPLIT_ACCURACIES_SCHEMA,
    Accuracies,
    save_accuracies,
)
from metalib.storage import StorageError, save_tensors, write_checked_json
from metalib.tasks.image_tasks import (
    BESIDE_TEST,
    Condition,
    count_frozen_episodes,
    load_frozen_episodes,
    load_image_tasks,
)
from metalib.trained_method import TrainedMethod
from metalib.update_rules import GradientDescent, LSTMRule, UpdateRule, rate_name
from stages.image_networks import image_network
from stages.jobs import Control, Job, run_jobs, worker_count
from stages.running import PARAMS, ParamsOption, Run, stage
from stages.update_rules import evaluation_rule, rule_at_test

N_ILLUSTRATIONS = 3
EPISODES_AT_ONCE = 20
"""Episodes in one vmapped block: fewer waste time starting operations, more do not fit the cache."""
GATE_EPISODES = 10
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Subject:
    """What one job evaluates: one seed, the ``index``-th, of a method in one condition."""

    method: str
    path: Path
    dataset: Path
    condition: Condition
    index: int

    @property
    def name(self) -> str:
        """What progress bars call it."""
        return f"{self.method}, {self.condition.way}-way {self.condition.shot}-shot, seed {self.index}"

    def count(self, *splits: str) -> int:
        """Return how many frozen episodes the condition has in these splits."""
        return sum(count_frozen_episodes(self.dataset, split, self.condition) for split in splits)

    def load(self) -> TrainedMethod:
        """Return the trained method with this seed alone."""
        method, only = TrainedMethod.load(self.path), slice(self.index, self.index + 1)
        return replace(method, phi=method.phi[only], seeds=method.seeds[only])


class Count:
    """What a progress bar shows: episodes evaluated so far."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._done = 0
        self(0)

    def __call__(self, episodes: int) -> None:
        """Count ``episodes`` more."""
        self._done += episodes
        self._control.advance(self._done)


class Found(NamedTuple):
    """What evaluation found for one condition; ``beside`` are accuracies ``[seed, episode]`` on other splits."""

    accuracies: Accuracies
    beside: dict[str, Tensor]
    predicted: Tensor
    gates: dict[str, Tensor]


def main(
    dataset: Annotated[Path, typer.Argument(help="Image tasks of generate_image_tasks, e.g. data/images.")],
    trained: Annotated[Path, typer.Argument(help="Trained method, e.g. artifacts/images/maml.")],
    output: Annotated[Path, typer.Argument(help="Folder to write, e.g. artifacts/images/scores/maml.")],
    params: ParamsOption = PARAMS,
) -> None:
    """Score a method in every condition of the image tasks (settings: evaluate_classifier).

    A baseline that is fine-tuned first chooses its rate on the validation episodes. Writes scores.safetensors
    (accuracies by seed, episode and gradient step), illustrations.safetensors (predictions on the first
    episodes), splits.safetensors (accuracies on episodes of training and validation classes), rates.json and, for
    the LSTM meta-learner, gates.safetensors (its gates at each step).
    """
    with stage(f"evaluate_classifier@{trained.name}", params) as run, run.output(output, dataset, trained) as folder:
        tasks = load_image_tasks(dataset)
        subjects = _subjects(trained, dataset, tasks.conditions)
        rates = _chosen_rates(run, subjects)
        jobs = [
            Job(
                subject.name,
                subject.count("test", *BESIDE_TEST),
                evaluate,
                (run, subject, rates.get(subject.condition, {}).get("chosen")),
            )
            for subject in subjects
        ]
        results = run_jobs(jobs, worker_count(run.machine, len(jobs)), "episodes")
        found = {
            condition: _joined(
                [result for subject, result in zip(subjects, results, strict=True) if subject.condition == condition]
            )
            for condition in tasks.conditions
        }
        settings = subjects[0].load().settings
        accuracies = [found[condition].accuracies for condition in tasks.conditions]
        save_accuracies(folder / "scores.safetensors", accuracies, tasks.dataset, settings)
        predicted = {condition.name: found[condition].predicted for condition in tasks.conditions}
        axes = {"axes": ["episode", "gradient_step", "query"]}
        save_tensors(folder / "illustrations.safetensors", IMAGE_ILLUSTRATION_SCHEMA, predicted, axes)
        beside = {f"{c.name}-{split}": values for c in tasks.conditions for split, values in found[c].beside.items()}
        save_tensors(folder / "splits.safetensors", SPLIT_ACCURACIES_SCHEMA, beside, {"axes": ["seed", "episode"]})
        tried = {condition.name: rates[condition] for condition in tasks.conditions if condition in rates}
        write_checked_json(folder / "rates.json", RATES_SCHEMA, tried)
        gates = {f"{c.name}-{gate}": q for c in tasks.conditions for gate, q in found[c].gates.items()}
        if gates:
            header = {"quantiles": list(QUANTILES), "episodes": min(GATE_EPISODES, accuracies[0].values.shape[1])}
            save_tensors(folder / "gates.safetensors", GATES_SCHEMA, gates, header)


def _subjects(trained: Path, dataset: Path, conditions: Sequence[Condition]) -> list[Subject]:
    """Return what is evaluated: longest first, so that no worker is left alone with the longest."""
    subjects = []
    for condition in sorted(conditions, key=lambda c: -c.way * c.shot):
        path = _weights(trained, condition)
        subjects += [
            Subject(trained.name, path, dataset, condition, i) for i in range(len(TrainedMethod.load(path).seeds))
        ]
    return subjects


def _weights(trained: Path, condition: Condition) -> Path:
    """Return where a condition's weights lie: a file of their own, or one for all conditions."""
    for path in (trained / f"{condition.name}.safetensors", trained / "weights.safetensors"):
        if path.is_file():
            return path
    raise StorageError(f"{trained} holds no weights for {condition.name}; run the stage that writes it (`dvc repro`)")


def _chosen_rates(run: Run, subjects: list[Subject]) -> dict[Condition, dict[str, float | None]]:
    """Return, for each condition of a baseline, the rates tried on validation episodes and the "chosen"."""
    settings = run.params.evaluate_classifier
    tuned = [subject for subject in subjects if _is_fine_tuned(subject.load())]
    n_rates = len(settings.finetune_rates)
    jobs = [Job(f"rates of {s.name}", n_rates * s.count("validation"), try_rates, (run, s)) for s in tuned]
    results = run_jobs(jobs, worker_count(run.machine, len(jobs)), "episodes") if jobs else []
    chosen: dict[Condition, dict[str, float | None]] = {}
    for condition in dict.fromkeys(subject.condition for subject in tuned):
        of_seeds = [result for s, result in zip(tuned, results, strict=True) if s.condition == condition]
        final = torch.cat(of_seeds, dim=1)
        rate, errors = best_rate(settings.finetune_rates, list(final), diverged_above=1.0)
        tried = {rate_name(r): error for r, error in errors.items()}
        chosen[condition] = {"chosen": rate, **tried}
    return chosen


def _is_fine_tuned(method: TrainedMethod) -> bool:
    return method.rule is None and method.method != "prototypical"


def try_rates(run: Run, subject: Subject, control: Control) -> Tensor:
    """Return one seed's error on every validation episode at each rate, ``[rates, 1, episodes]``."""
    settings, method = run.params.evaluate_classifier, subject.load()
    validation = load_frozen_episodes(subject.dataset, "validation", subject.condition)
    architecture, phi = _with_head(run, method, subject)
    count = Count(control)
    return torch.stack(
        [
            _final_errors(run, method, architecture, phi, GradientDescent(rate), validation, count)
            for rate in settings.finetune_rates
        ]
    )


def evaluate(run: Run, subject: Subject, rate: float | None, control: Control) -> Found:
    """Evaluate one seed of a method in one condition; a baseline at the ``rate`` chosen for it."""
    count = Count(control)
    method, test = subject.load(), load_frozen_episodes(subject.dataset, "test", subject.condition)
    if method.method == "prototypical":
        network = method.architecture.network()

        def nearest_prototypes(episodes: Episode) -> Tensor:
            found = prototype_predictions(network, subject.condition.way, method.phi, episodes, EPISODES_AT_ONCE)
            count(found.shape[1])
            return found

        beside = {
            split: (nearest_prototypes(episodes) == episodes.query.y).float().mean(-1)
            for split, episodes in _beside_test(subject).items()
        }
        predicted = nearest_prototypes(test)[:, :, None]
        return _found(method, subject, None, test, predicted, beside, {})
    architecture, phi = _with_head(run, method, subject)
    rule = rule_at_test(method, rate)
    fast = evaluation_rule(rule, run.machine)
    predicted = _predictions(architecture, phi, fast, test, run, count)
    beside = {
        split: 1 - _final_errors(run, method, architecture, phi, fast, episodes, count)
        for split, episodes in _beside_test(subject).items()
    }
    gates = {}
    if isinstance(rule, LSTMRule) and subject.index == 0:
        loss, support = CrossEntropy(architecture.network()), _first(test.support, GATE_EPISODES)
        gates = gate_quantiles(loss, rule, phi[0], support, method.inner_steps, QUANTILES)
    return _found(method, subject, rule, test, predicted, beside, gates)


def _beside_test(subject: Subject) -> dict[str, Episode]:
    return {split: load_frozen_episodes(subject.dataset, split, subject.condition) for split in BESIDE_TEST}


def _final_errors(
    run: Run,
    method: TrainedMethod,
    architecture: Architecture,
    phi: Tensor,
    rule: UpdateRule,
    episodes: Episode,
    count: Count,
) -> Tensor:
    """Return the error rate ``[1, episodes]`` after T updates of the LSTM meta-learner, the last step of others."""
    most = run.params.evaluate_classifier.gradient_steps
    steps = min(method.inner_steps, most) if isinstance(method.rule, LSTMRule) else most
    network = architecture.network()
    loss, score = CrossEntropy(network), error_rate(network)
    return final_scores(loss, rule, phi, episodes.support, episodes.query, steps, score, EPISODES_AT_ONCE, count)


def _found(
    method: TrainedMethod,
    subject: Subject,
    rule: UpdateRule | None,
    test: Episode,
    predicted: Tensor,
    beside: dict[str, Tensor],
    gates: dict[str, Tensor],
) -> Found:
    """Return what evaluation found, from the predicted classes ``[1, episodes, steps + 1, n_query]``."""
    values = (predicted == test.query.y[:, None]).float().mean(-1)
    train_steps = method.inner_steps if method.rule else None
    accuracies = Accuracies(method.method, *subject.condition, train_steps, getattr(rule, "rate", None), values)
    return Found(accuracies, beside, predicted[0, :N_ILLUSTRATIONS], gates)


def _joined(found: list[Found]) -> Found:
    """Return what was found for all seeds of a condition; pictures and gates are the first seed's."""
    values = torch.cat([each.accuracies.values for each in found])
    beside = {split: torch.cat([each.beside[split] for each in found]) for split in found[0].beside}
    return found[0]._replace(accuracies=replace(found[0].accuracies, values=values), beside=beside)


def _with_head(run: Run, method: TrainedMethod, subject: Subject) -> tuple[Architecture, Tensor]:
    """Return network and meta-parameters for the condition's classes; baselines get a new head, of zeros."""
    if method.rule is not None:
        return method.architecture, method.phi
    image_shape = load_image_tasks(subject.dataset).image_shape
    new = image_network(run.params.image_network, image_shape, subject.condition.way)
    return new, with_new_head(method.phi, method.architecture, new)


def _predictions(
    architecture: Architecture, phi: Tensor, rule: UpdateRule, test: Episode, run: Run, count: Count
) -> Tensor:
    """Return the predicted class of every query image after each step, ``[seeds, episodes, steps + 1, n_query]``."""
    network, steps = architecture.network(), run.params.evaluate_classifier.gradient_steps

    def predicted_class(theta: Tensor, batch: Batch) -> Tensor:
        return network(theta, batch.x).argmax(-1)

    loss = CrossEntropy(network)
    (predicted,) = adaptation_scores(
        loss, rule, phi, test.support, [test.query], steps, predicted_class, EPISODES_AT_ONCE, count
    )
    return predicted


def _first(batch: Batch, n: int) -> Batch:
    return Batch(batch.x[:n], batch.y[:n])


if __name__ == "__main__":
    typer.run(main)
