"""The part of the report stage that is on locomotion."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import pandas as pd
import typer

from metalib.locomotion.goals import load_goal_set
from metalib.reporting import locomotion, locomotion_figures, locomotion_settings
from metalib.reporting.page import render_markdown
from metalib.reporting.published import read_table
from metalib.reporting.returns import (
    at_largest_k,
    at_smallest_k,
    beside_published,
    drawn_beside,
    headline_metrics,
    return_table,
)
from metalib.reporting.wording import counted, either
from metalib.return_files import POLICY_RATES_SCHEMA, TASKS, Returns, load_returns, load_speeds
from metalib.storage import StorageError, read_checked_json, write_bytes, write_json, write_text
from stages.running import PARAMS, ParamsOption, Run, StageError, stage

CURVES = {
    "maml": ("maml/curves.tsv", {"env_steps", "return_before", "return_after", "validation_return"}),
    "pretrained": ("baselines/pretrained-curves.tsv", {"env_steps", "return", "validation_return"}),
    "oracle": ("baselines/oracle-curves.tsv", {"env_steps", "return", "validation_return"}),
}
POINTS = "point_navigation"  # walks in a plane: has no speed along a track, and nothing published in these units


class LocomotionReport(NamedTuple):
    """The long ``table``, the section as ``markdown``, ``pictures`` by path, ``metrics`` and a ``headline``."""

    table: pd.DataFrame
    markdown: str
    pictures: dict[str, bytes]
    metrics: dict[str, Any]
    headline: str


def main(
    data: Annotated[Path, typer.Argument(help="Task datasets, e.g. data.")],
    artifacts: Annotated[Path, typer.Argument(help="Trained policies and returns, e.g. artifacts.")],
    published: Annotated[Path, typer.Argument(help="Folder of published figures, e.g. published.")],
    output: Annotated[Path, typer.Argument(help="Folder to write, e.g. results/mine.")],
    tasks: Annotated[list[str], typer.Argument(help=f"Some of {', '.join(TASKS)}.")],
    params: ParamsOption = PARAMS,
) -> None:
    """Write a report on some locomotion tasks alone: tables, figures, metrics.json, report.md (settings: report)."""
    with stage("locomotion_report", params) as run, run.output(output, data, artifacts, published) as folder:
        if unknown := [task for task in tasks if task not in TASKS]:
            raise StageError(f"there is no task {unknown[0]!r}; name some of {', '.join(TASKS)}")
        found = locomotion_report(run, data, artifacts, published / "maml_figure5_locomotion.csv", tasks)
        write_text(folder / "tables" / "locomotion.csv", found.table.to_csv(index=False, float_format="%.6g"))
        for name, picture in found.pictures.items():
            write_bytes(folder / name, picture)
        write_json(folder / "metrics.json", found.metrics)
        write_text(folder / "report.md", found.markdown)


def locomotion_report(
    run: Run, data: Path, artifacts: Path, published: Path, tasks: Sequence[str] = TASKS
) -> LocomotionReport:
    """Return the report on the locomotion ``tasks`` (settings: report)."""
    loaded = {task: load_returns(artifacts / task / "scores" / "returns.safetensors") for task in tasks}
    returns = [entry for entries, _ in loaded.values() for entry in entries]
    settings = {task: trained_with for task, (_, trained_with) in loaded.items()}
    table = return_table(returns, run.params.report.seed, run.params.report.bootstrap_samples)
    comparison = beside_published(table, published)
    speeds = [load_speeds(artifacts / task / "scores" / "speeds.safetensors") for task in tasks if task != POINTS]
    return_figures = dict(_return_figures(table, comparison))
    videos = dict(_videos(artifacts, tasks))
    pictures = {
        **{name: picture for name, (_, picture) in return_figures.items()},
        "locomotion_training.png": locomotion_figures.learning_curves(_curves(artifacts, tasks)),
        **({"locomotion_speeds.png": locomotion_figures.speed_against_time(speeds)} if speeds else {}),
        **{f"{task}.webp": video for task, video in videos.items()},
    }
    context = {
        **_texts(table, comparison),
        **_training_texts(returns, settings),
        "tasks": tasks,
        "return_figures": [(name, alt) for name, (alt, _) in return_figures.items()],
        "training_figure": "locomotion_training.png",
        "speed_figure": "locomotion_speeds.png" if speeds else "",
        "ended_early": any(bool(values.isnan().any()) for one in speeds for values in one.values.values()),
        "comparison_rows": _comparison_rows(comparison, videos),
        "other_videos": [
            (locomotion.TASK_NAMES[task], f"{task}.webp") for task in videos if task not in set(comparison["task"])
        ],
        "rates": locomotion_settings.rates_table(_rates(artifacts, tasks), returns),
        "n_validation": len(load_goal_set(data / tasks[0] / "validation.safetensors").goals),
    }
    markdown = render_markdown(context, "locomotion.md.j2")
    paths = {f"figures/{name}": picture for name, picture in pictures.items()}
    metrics = {"locomotion": headline_metrics(table)}
    return LocomotionReport(table, markdown, paths, metrics, locomotion.maml_moves(context["headline"]))


def _texts(table: pd.DataFrame, comparison: pd.DataFrame) -> dict[str, Any]:
    """Return what the section says about returns."""
    directions = table[table["task"].isin(locomotion.DIRECTION_TASKS)]
    return {
        "headline": locomotion.headline(table),
        "gains": locomotion.gain_rows(table),
        "k": either(at_smallest_k(table)["rollouts"]),
        "dotted_k": either(at_largest_k(table[table["method"] == "maml"])["rollouts"]),
        "other_k": locomotion.at_other_k(drawn_beside(table, comparison)),
        "goals": counted(table["n_goals"], "frozen goal"),
        "seeds": counted(table["n_seeds"], "training seed"),
        "several_seeds": bool((table["n_seeds"] > 1).any()),
        "sources": list(dict.fromkeys(comparison["source"])),
        "direction_goals": sorted(set(directions["n_goals"])),
        "shares": locomotion.training_shares(comparison),
    }


def _training_texts(returns: Sequence[Returns], settings: locomotion_settings.Settings) -> dict[str, Any]:
    """Return what the section says about training and adaptation."""
    incidents = locomotion_settings.incident_rows(settings)
    others = locomotion_settings.setting_rows(settings)
    timings = (str(locomotion_settings.stated(settings, task, "timing")) for task in settings)
    return {
        "later_rates": locomotion_settings.later_rates(returns),
        "learned_rates": locomotion_settings.learns_rates(settings),
        "pretrains": any(methods.get("maml", {}).get("pretraining_steps") for methods in settings.values()),
        "departures": locomotion_settings.departures(settings),
        "networks": locomotion_settings.networks(settings),
        "timings": ", ".join(dict.fromkeys(timings)),
        "incidents": None if incidents.empty else incidents,
        "common": locomotion_settings.common_settings(settings),
        "settings_table": None if others.empty else others,
        "setting_notes": locomotion_settings.setting_notes(settings),
    }


def _return_figures(table: pd.DataFrame, comparison: pd.DataFrame) -> Iterator[tuple[str, tuple[str, bytes]]]:
    """Give name, description and picture: one figure for the bodies, one for the points, whose returns are small."""
    for name, here in (("locomotion", table["task"] != POINTS), (POINTS, table["task"] == POINTS)):
        if here.any():
            alt = f"Return against gradient steps for each method, {name.replace('_', ' ')}"
            yield f"{name}_returns.png", (alt, locomotion_figures.return_against_steps(table[here], comparison))


def _comparison_rows(comparison: pd.DataFrame, videos: Mapping[str, bytes]) -> list[tuple[str, str, pd.DataFrame]]:
    return [
        (
            locomotion.TASK_NAMES[task],
            f"{task}.webp" if task in videos else "",
            locomotion.published_rows(comparison, task),
        )
        for task in comparison["task"].unique()
    ]


def _videos(artifacts: Path, tasks: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Give the films; evaluation writes none where nothing can draw."""
    for task in tasks:
        path = artifacts / task / "scores" / "video.webp"
        if path.exists():
            try:
                yield task, path.read_bytes()
            except OSError as error:
                raise StorageError(f"{path} cannot be read ({error.strerror}); check its rights") from error


def _curves(artifacts: Path, tasks: Sequence[str]) -> dict[str, dict[str, pd.DataFrame]]:
    return {
        task: {method: read_table(artifacts / task / name, columns) for method, (name, columns) in CURVES.items()}
        for task in tasks
    }


def _rates(artifacts: Path, tasks: Sequence[str]) -> dict[str, Any]:
    return {task: read_checked_json(artifacts / task / "scores" / "rates.json", POLICY_RATES_SCHEMA) for task in tasks}


if __name__ == "__main__":
    typer.run(main)
