"""Draw the frozen task datasets: what training draws from, and what every method is validated and tested on."""

from pathlib import Path
from typing import Annotated

import torch
import typer

from metalib.losses import Batch
from metalib.randomness import generator
from metalib.storage import write_checked_json
from metalib.tasks import Sinusoid
from metalib.tasks.dataset import (
    ANCHORS_SCHEMA,
    TaskSet,
    draw_illustrations,
    draw_task_set,
    save_distribution,
    save_task_set,
)
from stages.running import PARAMS, ParamsOption, stage

N_ILLUSTRATIONS = 3


def main(
    output: Annotated[Path, typer.Argument(help="Folder to write, e.g. data/sinusoid.")],
    params: ParamsOption = PARAMS,
) -> None:
    """Draw the sinusoid tasks (settings: generate_tasks).

    Writes distribution.json (what training draws from), validation and test tasks with their support and
    query points, tasks for the figures, and the scores of two predictors that know no task (anchors.json).
    The same seed gives the same bytes.
    """
    with stage("generate_tasks", params) as run, run.output(output) as folder:
        settings = run.params.generate_tasks
        family = Sinusoid(settings.amplitude, settings.phase, settings.x)
        save_distribution(folder, family)
        for name, n_tasks in (("validation", settings.validation_tasks), ("test", settings.test_tasks)):
            numbers = generator(settings.seed, f"{name} tasks")
            task_set = draw_task_set(family, numbers, n_tasks, settings.support_points, settings.query_points)
            save_task_set(folder / f"{name}.safetensors", task_set)
        # The last task set of the loop is the test set.
        write_checked_json(folder / "anchors.json", ANCHORS_SCHEMA, _anchors(task_set))
        numbers = generator(settings.seed, "illustrations")
        illustrations = draw_illustrations(family, numbers, N_ILLUSTRATIONS, settings.support_points)
        save_task_set(folder / "illustrations.safetensors", illustrations)


def _anchors(test: TaskSet) -> dict[str, float]:
    """Return the mean squared errors on the test tasks of the zero function and of the tasks' mean function."""

    def error(batch: Batch, prediction: torch.Tensor) -> float:
        return float(torch.mean((prediction.double() - batch.y.double()) ** 2))

    return {
        "zero_function": error(test.query, torch.zeros_like(test.query.x)),
        "best_non_adapting": error(test.query, test.family.mean_function(test.query.x)),
    }


if __name__ == "__main__":
    typer.run(main)
