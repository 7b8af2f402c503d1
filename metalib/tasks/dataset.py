"""Frozen sinusoid tasks on disk: what every method is validated and tested on."""

from pathlib import Path
from typing import NamedTuple

import torch

from metalib.losses import Batch
from metalib.storage import StorageError, load_tensors, read_checked_json, save_tensors, write_checked_json
from metalib.tasks.sinusoid import Sinusoid, SinusoidTasks

_SCHEMA = "sinusoid tasks 1"
_DISTRIBUTION_SCHEMA = "sinusoid distribution 1"
ANCHORS_SCHEMA = "sinusoid anchors 1"
"""Mean squared errors on the test tasks of predictors that know no task, by name."""


class TaskSet(NamedTuple):
    """Frozen tasks with their data: ``support`` x, y ``[tasks, n, 1]`` and ``query`` x, y ``[tasks, m, 1]``."""

    family: Sinusoid
    tasks: SinusoidTasks
    support: Batch
    query: Batch

    def shots(self, k: int) -> Batch:
        """Return the first ``k`` support points of every task, so that larger K extends smaller K."""
        return first_points(self.support, k)


def first_points(batch: Batch, n: int) -> Batch:
    """Return the first ``n`` examples of every task.

    Raises:
        StorageError: fewer than ``n`` are there.
    """
    available = batch.x.shape[-2]
    if n > available:
        raise StorageError(
            f"{n} points asked for, but the task dataset holds {available} for each task; run generate_tasks again"
        )
    return Batch(batch.x[..., :n, :], batch.y[..., :n, :])


def draw_task_set(family: Sinusoid, generator: torch.Generator, n_tasks: int, n_support: int, n_query: int) -> TaskSet:
    """Draw ``n_tasks`` tasks with independent support and query points, all inputs from ``family.x``."""
    tasks = family.draw_tasks(generator, (n_tasks,))
    support_x = family.draw_inputs(generator, (n_tasks,), n_support)
    query_x = family.draw_inputs(generator, (n_tasks,), n_query)
    return TaskSet(family, tasks, Batch(support_x, tasks.targets(support_x)), Batch(query_x, tasks.targets(query_x)))


def draw_illustrations(family: Sinusoid, generator: torch.Generator, n_tasks: int, n_support: int) -> TaskSet:
    """Draw tasks whose support lies in one half of the inputs (in turn), and whose query is an even grid.

    Figure 2 of Finn et al. (2017) shows such tasks. Amplitudes are drawn from the upper two thirds of the
    family's, so that the curves can be seen.
    """
    smallest, largest = family.amplitude
    visible = Sinusoid((smallest + (largest - smallest) / 3, largest), family.phase, family.x)
    tasks = visible.draw_tasks(generator, (n_tasks,))
    low, high = family.x
    middle = (low + high) / 2
    halves = [
        Sinusoid(family.amplitude, family.phase, (middle, high) if index % 2 == 0 else (low, middle))
        for index in range(n_tasks)
    ]
    support_x = torch.stack([half.draw_inputs(generator, (), n_support) for half in halves])
    grid = torch.linspace(low, high, 201)[:, None].expand(n_tasks, -1, -1)
    return TaskSet(family, tasks, Batch(support_x, tasks.targets(support_x)), Batch(grid, tasks.targets(grid)))


def save_distribution(folder: Path, family: Sinusoid) -> None:
    """Write what training draws from to ``folder``/distribution.json."""
    write_checked_json(folder / "distribution.json", _DISTRIBUTION_SCHEMA, family.to_dict())


def load_distribution(folder: Path) -> Sinusoid:
    """Return what training draws from.

    Raises:
        StorageError: the file is missing, damaged or of another kind.
    """
    return Sinusoid.from_dict(read_checked_json(folder / "distribution.json", _DISTRIBUTION_SCHEMA))


def save_task_set(path: Path, task_set: TaskSet) -> None:
    """Write the tasks and their data to ``path``."""
    tensors = {
        "amplitude": task_set.tasks.amplitude,
        "phase": task_set.tasks.phase,
        "support_x": task_set.support.x,
        "support_y": task_set.support.y,
        "query_x": task_set.query.x,
        "query_y": task_set.query.y,
    }
    save_tensors(path, _SCHEMA, tensors, {"family": task_set.family.to_dict()})


def load_task_set(path: Path) -> TaskSet:
    """Return the tasks that :func:`save_task_set` wrote.

    Raises:
        StorageError: the file is missing, damaged or of another kind.
    """
    tensors, header = load_tensors(path, _SCHEMA)
    return TaskSet(
        Sinusoid.from_dict(header["family"]),
        SinusoidTasks(tensors["amplitude"], tensors["phase"]),
        Batch(tensors["support_x"], tensors["support_y"]),
        Batch(tensors["query_x"], tensors["query_y"]),
    )
