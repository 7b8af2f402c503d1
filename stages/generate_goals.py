"""Freeze the goals of a locomotion family: what every method is validated and tested on."""

from pathlib import Path
from typing import Annotated

import typer

from metalib.locomotion.families import FAMILIES
from metalib.locomotion.goals import EVALUATION_GOALS, VALIDATION_GOALS, draw_goal_set, save_goal_set
from metalib.randomness import generator
from stages.running import PARAMS, ParamsOption, StageError, stage


def main(
    family: Annotated[str, typer.Argument(help=f"One of {', '.join(FAMILIES)}, e.g. cheetah_vel.")],
    output: Annotated[Path, typer.Argument(help="Folder to write, e.g. data/cheetah_vel.")],
    params: ParamsOption = PARAMS,
) -> None:
    """Draw the frozen goals of a locomotion family (settings: generate_tasks).

    Writes 40 goals for the test and 20 for validation; of the direction families, each of the two goals equally often.
    The same seed gives the same bytes.
    """
    with stage("generate_goals", params) as run, run.output(output) as folder:
        if family not in FAMILIES:
            raise StageError(f"unknown task family {family!r}; known: {', '.join(FAMILIES)}")
        for name, n in (("validation", VALIDATION_GOALS), ("test", EVALUATION_GOALS)):
            numbers = generator(run.params.generate_tasks.seed, f"{family} {name} goals")
            save_goal_set(folder / f"{name}.safetensors", draw_goal_set(FAMILIES[family], numbers, n))


if __name__ == "__main__":
    typer.run(main)
