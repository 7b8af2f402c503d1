"""Stored returns and speeds of policies: what evaluation of locomotion writes and reporting reads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metalib.storage import load_tensors, save_tensors

TASKS = ("cheetah_vel", "cheetah_dir", "ant_vel", "ant_dir", "point_navigation")
"""The order of tasks in every table and figure."""
METHODS = ("maml", "pretrained", "random", "oracle")
"""The order of methods in every table and legend."""
POLICY_RATES_SCHEMA = "policy rates 1"
"""For each method whose rate was chosen (pretrained, random): by rate, the mean return on validation goals after one
gradient step on as many rollouts as in training (None where it is not finite), and the ``chosen`` rate."""
_SCHEMA = "returns 2"
_SPEEDS_SCHEMA = "speeds 1"


@dataclass(frozen=True)
class Returns:
    """Returns of one method on the frozen goals of one task family.

    Args:
        task: of :data:`TASKS`.
        method: of :data:`METHODS`.
        rollouts: K, the rollouts adapted on at each gradient step.
        rates: the rate of each gradient step; of a rule with a learned rate for every parameter their mean, repeated
            for each step; empty for a method that does not adapt.
        env_steps: environment steps of training of one seed; 0 for an untrained policy.
        values: mean undiscounted return of a goal's fresh rollouts after each number of gradient steps, from none on,
            ``[seed, goal, gradient_step]`` float64.

    Raises:
        ValueError: the task or method is unknown, or ``values`` is not of that shape for as many steps as rates.
    """

    task: str
    method: str
    rollouts: int
    rates: tuple[float, ...]
    env_steps: int
    values: Tensor

    def __post_init__(self) -> None:
        for kind, name, known in (("task", self.task, TASKS), ("method", self.method, METHODS)):
            if name not in known:
                raise ValueError(f"unknown {kind} {name!r}; known: {', '.join(known)}")
        if self.values.ndim != 3 or self.values.shape[2] != len(self.rates) + 1:
            raise ValueError(
                f"returns of {self.method} with {len(self.rates)} rates must be of shape "
                f"[seed, goal, {len(self.rates) + 1}], got {list(self.values.shape)}"
            )

    @property
    def name(self) -> str:
        """Method and K, e.g. ``maml-k20``: unique within a task."""
        return f"{self.method}-k{self.rollouts}"


def save_returns(path: Path, returns: Sequence[Returns], settings: Mapping[str, Any]) -> None:
    """Write the returns of all methods on one task, each tensor under its method and K, e.g. ``maml-k20``.

    Args:
        path: the file.
        returns: one for each method and K.
        settings: by method, plain data on how it was trained and what went wrong.

    Raises:
        ValueError: a method stands twice with the same K.
        StorageError: the file cannot be written.
    """
    tensors = {entry.name: entry.values.double() for entry in returns}
    if len(tensors) < len(returns):
        raise ValueError(f"one entry a method and K is needed, got {', '.join(entry.name for entry in returns)}")
    entries = [{key: value for key, value in vars(entry).items() if key != "values"} for entry in returns]
    header = {"axes": ["seed", "goal", "gradient_step"], "entries": entries, "settings": dict(settings)}
    save_tensors(path, _SCHEMA, tensors, header)


def load_returns(path: Path) -> tuple[list[Returns], dict[str, Any]]:
    """Return the returns and settings that :func:`save_returns` wrote.

    Raises:
        StorageError: the file is missing, damaged or of another kind.
    """
    tensors, header = load_tensors(path, _SCHEMA)
    returns = [
        Returns(**{**entry, "rates": tuple(entry["rates"])}, values=tensors[f"{entry['method']}-k{entry['rollouts']}"])
        for entry in header["entries"]
    ]
    return returns, header["settings"]


class Speeds(NamedTuple):
    """Speeds of single rollouts against time.

    Args:
        task: of :data:`TASKS`.
        goals: of the selected tasks, ``[goal, goal_size]``.
        seconds: the time that one action lasts.
        values: by method and number of gradient steps, the x-velocity of the centre of mass in m/s before each action
            and at the end, NaN after a rollout's end, ``[goal, time + 1]``.
    """

    task: str
    goals: Tensor
    seconds: float
    values: dict[tuple[str, int], Tensor]


def save_speeds(path: Path, speeds: Speeds) -> None:
    """Write the speeds of selected rollouts, as ``<method>-step<number of gradient steps>``.

    Raises:
        ValueError: speeds of other goals than those named.
        StorageError: the file cannot be written.
    """
    for (method, step), values in speeds.values.items():
        if values.ndim != 2 or len(values) != len(speeds.goals):
            raise ValueError(
                f"speeds of {method} after {step} steps must be of shape [{len(speeds.goals)}, time + 1], "
                f"got {list(values.shape)}"
            )
    header = {"task": speeds.task, "goals": speeds.goals.tolist(), "seconds": speeds.seconds}
    save_tensors(path, _SPEEDS_SCHEMA, {f"{m}-step{s}": v for (m, s), v in speeds.values.items()}, header)


def load_speeds(path: Path) -> Speeds:
    """Return the speeds that :func:`save_speeds` wrote.

    Raises:
        StorageError: the file is missing, damaged or of another kind.
    """
    tensors, header = load_tensors(path, _SPEEDS_SCHEMA)
    values = {}
    for name, speed in tensors.items():
        method, step = name.rsplit("-step", 1)
        values[method, int(step)] = speed
    return Speeds(header["task"], torch.tensor(header["goals"]), header["seconds"], values)
