"""Freeze the goals of a locomotion family: what every method is validated and tested on."""

from pathlib import Path
from typing import Annotated

import torch
import typer

from metalib.locomotion.families import FAMILIES, Family
from metalib.locomotion.goals import EVALUATION_GOALS, VALIDATION_GOALS, GoalSet, draw_goal_set, save_goal_set
from metalib.locomotion.tasks import LocomotionFamily
from metalib.randomness import generator
from stages.running import PARAMS, ParamsOption, StageError, stage


def main(
    family: Annotated[str, typer.Argument(help=f"One of {', '.join(FAMILIES)}, e.g. cheetah_vel.")],
    output: Annotated[Path, typer.Argument(help="Folder to write, e.g. data/cheetah_vel.")],
    params: ParamsOption = PARAMS,
) -> None:
    """Draw the frozen goals of a locomotion family (settings: generate_tasks).

    Writes 40 goals for the test and 20 for validation. Those of the test are drawn; velocities for validation stand
    evenly on their range, since the best of several policies on 20 drawn ones may only be the best for slow goals.
    Of the direction families each of the two goals stands equally often. The same seed gives the same bytes.
    """
    with stage("generate_goals", params) as run, run.output(output) as folder:
        if family not in FAMILIES:
            raise StageError(f"unknown task family {family!r}; known: {', '.join(FAMILIES)}")
        chosen, seed = FAMILIES[family], run.params.generate_tasks.seed
        for name, draw, n in (
            ("validation", _validation_goals, VALIDATION_GOALS),
            ("test", draw_goal_set, EVALUATION_GOALS),
        ):
            goal_set = draw(chosen, generator(seed, f"{family} {name} goals"), n)
            save_goal_set(folder / f"{name}.safetensors", goal_set)


def _validation_goals(family: Family, numbers: torch.Generator, n: int) -> GoalSet:
    """Return velocities in the middles of ``n`` equal parts of their range; of other families goals as for the test."""
    if not isinstance(family, LocomotionFamily) or family.goal != "velocity":
        return draw_goal_set(family, numbers, n)
    low, high = family.goal_range
    return GoalSet(family, (low + (high - low) * (torch.arange(n) + 0.5) / n)[:, None])


if __name__ == "__main__":
    typer.run(main)
