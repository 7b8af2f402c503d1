"""Stored scores: what evaluation writes and reporting reads."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
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
OUTSIDE = "outside"
"""The experiment on tasks that training does not meet."""
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


def save_scores(path: Path, scores: Sequence[Scores], settings: dict[str, Any]) -> None:
    """Write the scores of one method to ``path``; ``settings`` say how the method was trained."""
    _save(path, _SCHEMA, scores, "task", settings=settings)


def load_scores(path: Path) -> tuple[list[Scores], dict[str, Any]]:
    """Return the scores and settings that :func:`save_scores` wrote.

    Raises:
        StorageError: the file is missing, damaged or of another kind.
    """
    scores, header = _load(path, _SCHEMA, Scores)
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


def save_condition_scores(path: Path, scores: Sequence[ConditionScores], settings: dict[str, Any]) -> None:
    """Write scores by condition to ``path``; ``settings`` hold for all of them."""
    _save(path, _CONDITIONS_SCHEMA, scores, "task", settings=settings)


def load_condition_scores(path: Path) -> tuple[list[ConditionScores], dict[str, Any]]:
    """Return the scores and settings that :func:`save_condition_scores` wrote.

    Raises:
        StorageError: the file is missing, damaged or of another kind.
    """
    scores, header = _load(path, _CONDITIONS_SCHEMA, ConditionScores)
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


def save_accuracies(path: Path, accuracies: Sequence[Accuracies], dataset: str, settings: dict[str, Any]) -> None:
    """Write the accuracies of one method to ``path``; ``settings`` say how the method was trained."""
    _save(path, _ACCURACIES_SCHEMA, accuracies, "episode", dataset=dataset, settings=settings)


def load_accuracies(path: Path) -> tuple[list[Accuracies], str, dict[str, Any]]:
    """Return the accuracies, the dataset's name and the settings that :func:`save_accuracies` wrote.

    Raises:
        StorageError: the file is missing, damaged or of another kind.
    """
    accuracies, header = _load(path, _ACCURACIES_SCHEMA, Accuracies)
    return accuracies, header["dataset"], header["settings"]


class _Entry(Protocol):
    """What the kinds of scores have in common."""

    def __init__(self, *, values: Tensor, **keys: Any) -> None: ...

    @property
    def name(self) -> str: ...

    @property
    def values(self) -> Tensor: ...


E = TypeVar("E", bound=_Entry)


def _save(path: Path, schema: str, entries: Sequence[_Entry], unit: str, **header: Any) -> None:
    """Write values ``[seed, unit, gradient_step]``, each under its entry's name, and what else an entry says."""
    said = [{key: value for key, value in vars(entry).items() if key != "values"} for entry in entries]
    header |= {"axes": ["seed", unit, "gradient_step"], "entries": said}
    save_tensors(path, schema, {entry.name: entry.values for entry in entries}, header)


def _load(path: Path, schema: str, kind: type[E]) -> tuple[list[E], dict[str, Any]]:
    """Return the entries that :func:`_save` wrote, and the header."""
    tensors, header = load_tensors(path, schema)
    names = [kind(**entry, values=torch.empty(0)).name for entry in header["entries"]]
    return [kind(**e, values=tensors[name]) for e, name in zip(header["entries"], names, strict=True)], header
