"""Make the few-shot image tasks: classes of three splits, and the episodes that every method is judged on."""

from pathlib import Path
from typing import Annotated

import typer

from metalib.config import GenerateImageTasksSettings
from metalib.storage import StorageError, write_json
from metalib.tasks.glyphs import draw_glyphs, glyph_counts
from metalib.tasks.image_classes import ImageClasses
from metalib.tasks.image_folders import load_miniimagenet, load_omniglot
from metalib.tasks.image_tasks import Condition, save_image_tasks
from metalib.tasks.typefaces import Jitter
from stages.running import PARAMS, ParamsOption, stage


def main(
    output: Annotated[Path, typer.Argument(help="Folder to write, e.g. data/images.")],
    params: ParamsOption = PARAMS,
) -> None:
    """Make the image tasks (settings: generate_image_tasks): Glyphs, drawn here, or Omniglot or miniImageNet.

    Writes the classes of the training, validation and test splits, frozen episodes of each way and shot for all
    three (as many of training classes as of validation classes), and tasks.json. The same seed gives the same bytes.
    """
    with stage("generate_image_tasks", params) as run, run.output(output) as folder:
        settings = run.params.generate_image_tasks
        splits = _splits(settings)
        if settings.rotated_classes:
            splits = {**splits, "train": splits["train"].with_rotations()}
        conditions = tuple(Condition(way, shot) for way in settings.ways for shot in settings.shots)
        others = settings.validation_episodes
        frozen = {"train": others, "validation": others, "test": settings.test_episodes}
        try:
            save_image_tasks(folder, settings.dataset, splits, conditions, settings.queries, frozen, settings.seed)
        except ValueError as error:
            raise StorageError(f"generate_image_tasks: {error}; change ways, shots or queries") from error
        if settings.dataset == "glyphs":
            write_json(folder / "glyph_counts.json", glyph_counts())


def _splits(settings: GenerateImageTasksSettings) -> dict[str, ImageClasses]:
    folder = Path(settings.folder)
    match settings.dataset:
        case "omniglot":
            return load_omniglot(folder, settings.seed)
        case "miniimagenet":
            return load_miniimagenet(folder)
        case "glyphs":
            jitter = Jitter(settings.max_rotation, settings.max_scale, settings.max_shear, settings.max_shift)
            return draw_glyphs(settings.seed, jitter)


if __name__ == "__main__":
    typer.run(main)
