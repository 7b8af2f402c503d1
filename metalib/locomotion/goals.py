"""Frozen goals on disk: what every method is validated and tested on, drawn independently of training."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from metalib.locomotion.families import Family, family_named
from metalib.locomotion.tasks import LocomotionFamily
from metalib.storage import StorageError, load_tensors, save_tensors

_SCHEMA = "locomotion goals 1"

EVALUATION_GOALS = 40
VALIDATION_GOALS = 20
"""The paper's evaluation has 40 goals; rates are chosen on other ones."""


class GoalSet(NamedTuple):
    """Frozen tasks of one family: ``goals`` ``[task, goal_size]``."""

    family: Family
    goals: Tensor


def draw_goal_set(family: Family, generator: torch.Generator, n: int) -> GoalSet:
    """Draw ``n`` frozen tasks.

    A direction family has two goals only: each then stands n/2 times, in turn, and what differs between the repeats is
    the noise of their rollouts.

    Raises:
        ValueError: n is below 1, or odd for a direction family.
    """
    if n < 1:
        raise ValueError(f"the number of goals must be 1 or more, got {n}")
    if isinstance(family, LocomotionFamily) and family.goal == "direction":
        if n % 2:
            raise ValueError(f"{family.name} has two goals, which stand equally often; an even number, not {n}")
        return GoalSet(family, torch.tensor(family.goal_range).repeat(n // 2)[:, None])
    return GoalSet(family, family.draw_goals(generator, n))


def save_goal_set(path: Path, goal_set: GoalSet) -> None:
    """Write the goals to ``path``."""
    save_tensors(path, _SCHEMA, {"goals": goal_set.goals}, {"family": goal_set.family.name})


def load_goal_set(path: Path) -> GoalSet:
    """Return the goals that :func:`save_goal_set` wrote.

    Raises:
        StorageError: the file is missing, damaged or of another kind, or its goals are none of its family.
    """
    tensors, header = load_tensors(path, _SCHEMA)
    try:
        family = family_named(header["family"])
        family.check_goals(tensors["goals"])
    except ValueError as error:
        raise StorageError(f"{path}: {error}; delete it and run `dvc repro`") from error
    return GoalSet(family, tensors["goals"])
