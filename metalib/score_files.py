"""Stored scores: what evaluation writes and reporting reads."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from metalib.storage import load_tensors, save_tensors

_SCHEMA = "scores 1"
_CONDITIONS_SCHEMA = "scores by condition 1"
_ACCURACIES_SCHEMA = "accuracies 1"
RATES_SCHEMA = "fine-tuning rates 1"
"""For each ``k<K>`` the mean validation error by rate, and the chosen rate."""
IMAGE_ILLUSTRATION_SCHEMA = "image illustrations 1"
"""Predicted classes on the first test episodes, ``<way>way-<shot>shot`` ``[episode, gradient step, query]``."""
SPLIT_ACCURACIES_SCHEMA = "accuracies by split 1"
"""Accuracies on frozen episodes of other splits than test, ``<way>way-<shot>shot-<split>`` ``[seed, episode]``."""
GATES_SCHEMA = "gate quantiles 2"
"""``<name>-forget`` and ``<name>-input`` ``[inner step, quantile]`` of the LSTM rule; header: quantiles, episodes."""
ILLUSTRATION_SCHEMA = "illustrations 1"
"""Predictions for the figures, ``k<K>`` ``[task, gradient step, x]``."""


@dataclass(frozen=True)
class Scores:
    """Scores of one method under one condition.

    Args:
        method: maml, pretrained, oracle or scratch.
        train_shots: K of meta-training; None for methods that are not trained per K.
        test_shots: K at test.
        query_points: the number of query points behind a score.
        rate: the inner rate at test; None for methods that do not adapt.
        values: mean squared errors ``[seed, task, gradient_step]``.
    """

    method: str
    train_shots: int | None
    test_shots: int
    query_points: int
    rate: float | None
    values: Tensor

    @property
    def name(self) -> str:
        """The name under which the values are stored."""
        trained = "" if self.train_shots is None else f"train{self.train_shots}-"
        return f"{self.method}-{trained}test{self.test_shots}-query{self.query_points}"


def save_scores(path: Path, scores: list[Scores], settings: dict[str, Any]) -> None:
    """Write the scores of one method to ``path``; ``settings`` say how the method was trained."""
    entries = [{key: value for key, value in asdict(s).items() if key != "values"} for s in scores]
    header = {"axes": ["seed", "task", "gradient_step"], "entries": entries, "settings": settings}
    save_tensors(path, _SCHEMA, {s.name: s.values for s in scores}, header)


def load_scores(path: Path) -> tuple[list[Scores], dict[str, Any]]:
    """Return the scores and settings that :func:`save_scores` wrote.

    Raises:
        StorageError: the file is missing, damaged or of another kind.
    """
    tensors, header = load_tensors(path, _SCHEMA)
    scores = []
    for entry in header["entries"]:
        key = Scores(**entry, values=next(iter(tensors.values()))).name
        scores.append(Scores(**entry, values=tensors[key]))
    return scores, header["settings"]


@dataclass(frozen=True)
class ConditionScores:
    """Scores of one method under one condition of an experiment that varies it.

    Args:
        experiment: what is varied, e.g. training_tasks.
        condition: its value, e.g. 64.
        method: maml, lstm or pretrained.
        zero_function: mean squared error of the zero function on the same tasks.
        values: mean squared errors ``[seed, task, gradient_step]``.
    """

    experiment: str
    condition: str
    method: str
    zero_function: float
    values: Tensor

    @property
    def name(self) -> str:
        """The name under which the values are stored."""
        return f"{self.experiment}-{self.condition}-{self.method}"


def save_condition_scores(path: Path, scores: list[ConditionScores], settings: dict[str, Any]) -> None:
    """Write scores by condition to ``path``; ``settings`` hold for all of them."""
    entries = [{key: value for key, value in vars(s).items() if key != "values"} for s in scores]
    header = {"axes": ["seed", "task", "gradient_step"], "entries": entries, "settings": settings}
    save_tensors(path, _CONDITIONS_SCHEMA, {s.name: s.values for s in scores}, header)


def load_condition_scores(path: Path) -> tuple[list[ConditionScores], dict[str, Any]]:
    """Return the scores and settings that :func:`save_condition_scores` wrote.

    Raises:
        StorageError: the file is missing, damaged or of another kind.
    """
    tensors, header = load_tensors(path, _CONDITIONS_SCHEMA)
    names = ["{experiment}-{condition}-{method}".format(**entry) for entry in header["entries"]]
    scores = [ConditionScores(**e, values=tensors[name]) for e, name in zip(header["entries"], names, strict=True)]
    return scores, header["settings"]


@dataclass(frozen=True)
class Accuracies:
    """Accuracies of one method in N-way K-shot classification.

    Args:
        method: maml, lstm, pretrained, scratch, nearest_neighbour or prototypical.
        way: classes an episode.
        shot: support images a class.
        train_steps: inner steps of meta-training; None for methods that are not trained to adapt.
        rate: the inner rate at test; None for methods without one.
        values: share of the query that is right, in 0..1, ``[seed, episode, gradient_step]``.
    """

    method: str
    way: int
    shot: int
    train_steps: int | None
    rate: float | None
    values: Tensor

    @property
    def name(self) -> str:
        """The name under which the values are stored."""
        return f"{self.method}-{self.way}way-{self.shot}shot"


def save_accuracies(path: Path, accuracies: list[Accuracies], dataset: str, settings: dict[str, Any]) -> None:
    """Write the accuracies of one method to ``path``; ``settings`` say how the method was trained."""
    entries = [{key: value for key, value in vars(a).items() if key != "values"} for a in accuracies]
    header = {"axes": ["seed", "episode", "gradient_step"], "dataset": dataset, "entries": entries}
    save_tensors(path, _ACCURACIES_SCHEMA, {a.name: a.values for a in accuracies}, {**header, "settings": settings})


def load_accuracies(path: Path) -> tuple[list[Accuracies], str, dict[str, Any]]:
    """Return the accuracies, the dataset's name and the settings that :func:`save_accuracies` wrote.

    Raises:
        StorageError: the file is missing, damaged or of another kind.
    """
    tensors, header = load_tensors(path, _ACCURACIES_SCHEMA)
    names = [f"{e['method']}-{e['way']}way-{e['shot']}shot" for e in header["entries"]]
    accuracies = [Accuracies(**e, values=tensors[name]) for e, name in zip(header["entries"], names, strict=True)]
    return accuracies, header["dataset"], header["settings"]
