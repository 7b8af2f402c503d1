"""Few-shot image tasks on disk: classes of three splits, and the frozen episodes that every method is judged on."""

from pathlib import Path
from typing import Any, NamedTuple

from metalib.losses import Episode
from metalib.randomness import generator
from metalib.storage import read_checked_json, write_checked_json
from metalib.tasks.image_classes import (
    ImageClasses,
    load_episode_index,
    load_image_classes,
    save_episode_index,
    save_image_classes,
)

_SCHEMA = "image tasks 1"
SPLITS = ("train", "validation", "test")
BESIDE_TEST = SPLITS[:2]
"""Splits whose frozen episodes say what a method reaches on classes that it was trained on, or chosen on."""


class Condition(NamedTuple):
    """N-way K-shot classification."""

    way: int
    shot: int

    @property
    def name(self) -> str:
        """The condition in names of files and jobs."""
        return f"{self.way}way-{self.shot}shot"


class ImageTasks(NamedTuple):
    """What a folder of few-shot image tasks says of itself.

    ``image_shape`` is channels, height, width; ``queries`` the query images of each class.
    """

    dataset: str
    image_shape: tuple[int, int, int]
    queries: int
    conditions: tuple[Condition, ...]


def save_image_tasks(
    folder: Path,
    dataset: str,
    splits: dict[str, ImageClasses],
    conditions: tuple[Condition, ...],
    queries: int,
    frozen_episodes: dict[str, int],
    seed: int,
) -> None:
    """Write the classes, and as many frozen episodes of each condition as ``frozen_episodes`` says by split.

    Raises:
        ValueError: a split cannot serve a condition; said before anything is written.
    """
    frozen = {
        (split, condition): splits[split].draw_episodes(
            generator(seed, f"{split} episodes, {condition.name}"), (n,), condition.way, condition.shot, queries
        )
        for split, n in frozen_episodes.items()
        for condition in conditions
    }
    for split in SPLITS:
        save_image_classes(_classes_path(folder, split), splits[split])
    for (split, condition), index in frozen.items():
        save_episode_index(_episodes_path(folder, split, condition), index)
    about: dict[str, Any] = {
        "dataset": dataset,
        "image_shape": list(splits["train"].images.shape[2:]),
        "queries": queries,
        "conditions": [list(condition) for condition in conditions],
    }
    write_checked_json(folder / "tasks.json", _SCHEMA, about)


def load_image_tasks(folder: Path) -> ImageTasks:
    """Return what the folder says of itself.

    Raises:
        StorageError: the file is missing, damaged or of another kind.
    """
    about = read_checked_json(folder / "tasks.json", _SCHEMA)
    conditions = tuple(Condition(*pair) for pair in about["conditions"])
    return ImageTasks(about["dataset"], tuple(about["image_shape"]), about["queries"], conditions)


def load_classes(folder: Path, split: str) -> ImageClasses:
    """Return the classes of a split.

    Raises:
        StorageError: the file is missing, damaged or of another kind.
    """
    return load_image_classes(_classes_path(folder, split))


def load_frozen_episodes(folder: Path, split: str, condition: Condition) -> Episode:
    """Return the frozen episodes of a split, images and labels ``[episodes, ...]``.

    Raises:
        StorageError: a file is missing, damaged or of another kind.
    """
    return load_classes(folder, split).episodes(load_episode_index(_episodes_path(folder, split, condition)))


def count_frozen_episodes(folder: Path, split: str, condition: Condition) -> int:
    """Return how many episodes :func:`load_frozen_episodes` gives, without their images."""
    return len(load_episode_index(_episodes_path(folder, split, condition)).classes)


def _classes_path(folder: Path, split: str) -> Path:
    return folder / f"classes-{split}.safetensors"


def _episodes_path(folder: Path, split: str, condition: Condition) -> Path:
    return folder / f"episodes-{split}-{condition.name}.safetensors"
