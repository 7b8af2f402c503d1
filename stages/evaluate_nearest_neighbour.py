"""Score nearest neighbours on pixels, which learn nothing, on the frozen test episodes."""

from pathlib import Path
from typing import Annotated

import typer

from metalib.metric_learning import nearest_neighbours
from metalib.score_files import IMAGE_ILLUSTRATION_SCHEMA, SPLIT_ACCURACIES_SCHEMA, Accuracies, save_accuracies
from metalib.storage import save_tensors
from metalib.tasks.image_tasks import BESIDE_TEST, load_frozen_episodes, load_image_tasks
from stages.evaluate_classifier import N_ILLUSTRATIONS
from stages.running import PARAMS, ParamsOption, stage


def main(
    dataset: Annotated[Path, typer.Argument(help="Image tasks of generate_image_tasks, e.g. data/images.")],
    output: Annotated[Path, typer.Argument(help="Folder to write, e.g. artifacts/images/scores/nearest_neighbour.")],
    params: ParamsOption = PARAMS,
) -> None:
    """Give each query image the class of the support image nearest in pixels, in every condition.

    Writes scores.safetensors (accuracies by episode), illustrations.safetensors (the first predictions) and
    splits.safetensors (accuracies on episodes of training and validation classes).
    """
    with stage("evaluate_nearest_neighbour", params) as run, run.output(output, dataset) as folder:
        tasks = load_image_tasks(dataset)
        accuracies, illustrations, beside = [], {}, {}
        for condition in tasks.conditions:
            test = load_frozen_episodes(dataset, "test", condition)
            predicted = nearest_neighbours(test)
            values = (predicted == test.query.y).float().mean(-1)[None, :, None]
            accuracies.append(Accuracies("nearest_neighbour", *condition, None, None, values))
            illustrations[condition.name] = predicted[:N_ILLUSTRATIONS, None]
            for split in BESIDE_TEST:
                episodes = load_frozen_episodes(dataset, split, condition)
                right = nearest_neighbours(episodes) == episodes.query.y
                beside[f"{condition.name}-{split}"] = right.float().mean(-1)[None]
        save_accuracies(folder / "scores.safetensors", accuracies, tasks.dataset, {})
        save_tensors(folder / "splits.safetensors", SPLIT_ACCURACIES_SCHEMA, beside, {"axes": ["seed", "episode"]})
        axes = {"axes": ["episode", "gradient_step", "query"]}
        save_tensors(folder / "illustrations.safetensors", IMAGE_ILLUSTRATION_SCHEMA, illustrations, axes)


if __name__ == "__main__":
    typer.run(main)
