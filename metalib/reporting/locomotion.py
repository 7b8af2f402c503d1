"""What the report on locomotion says about returns: every table and figure of its text, from the long table."""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from metalib.reporting.returns import at_smallest_k
from metalib.reporting.style import METHOD_STYLES
from metalib.reporting.wording import counted, either

TASK_NAMES = {
    "cheetah_vel": "half-cheetah, velocity",
    "cheetah_dir": "half-cheetah, direction",
    "ant_vel": "ant, velocity",
    "ant_dir": "ant, direction",
    "point_navigation": "point navigation",
}
_HEADLINE = (("maml", 0), ("maml", 1), ("pretrained", 1), ("random", 0), ("random", 1), ("oracle", 0))
DIRECTION_TASKS = ("cheetah_dir", "ant_dir")


def headline(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return for each task what one gradient step does to MAML and the policies that did not meta-learn.

    All at a method's smallest K. Methods or steps that were not run are missing (None). ``ruined``: MAML's mean return
    after the last step, and which that is, where it is below that before adaptation.
    """
    rows, smallest = [], at_smallest_k(table)
    for task in smallest["task"].unique():
        here = smallest[smallest["task"] == task].set_index(["method", "gradient_step"])
        found = {
            f"{method}_{step}": here.loc[(method, step)].to_dict() if (method, step) in here.index else None
            for method, step in _HEADLINE
        }
        rows.append({"task": task, "name": TASK_NAMES[task], **found, "ruined": _ruined(smallest, task)})
    return rows


def _ruined(smallest: pd.DataFrame, task: str) -> dict[str, Any] | None:
    rows = smallest[(smallest["task"] == task) & (smallest["method"] == "maml")].sort_values("gradient_step")
    if rows.empty or rows["return_mean"].iloc[-1] >= rows["return_mean"].iloc[0]:
        return None
    return {"steps": int(rows["gradient_step"].iloc[-1]), "return_mean": float(rows["return_mean"].iloc[-1])}


def maml_moves(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return one sentence on what a gradient step does to MAML in every task, from rows of :func:`headline`."""
    run = [row for row in rows if row["maml_0"] and row["maml_1"]]
    moves = [
        f"from {row['maml_0']['return_mean']:.0f} to {row['maml_1']['return_mean']:.0f} ({row['name']})" for row in run
    ]
    k = either(row["maml_1"]["rollouts"] for row in run)
    return f"One gradient step on {k} rollouts moves MAML's mean return {', '.join(moves)}." if moves else ""


def gain_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Return for each task, method and K the returns before and after adaptation, and the paired gains.

    A method that does not adapt has one row, with the rollouts of its smallest K.
    """
    last = int(table["gradient_step"].max())
    steps = [step for step in dict.fromkeys((1, last)) if 0 < step <= last]
    rows = []
    for (task, method), of_method in table.groupby(["task", "method"], sort=False):
        adapts = of_method["gradient_step"].max() > 0
        for k, of_k in (of_method if adapts else at_smallest_k(of_method)).groupby("rollouts"):
            row = {"task": TASK_NAMES[str(task)], "method": METHOD_STYLES[str(method)].label}
            row["K"] = str(k) if adapts else "-"
            rows.append({**row, **_gains(of_k.set_index("gradient_step"), steps)})
    return pd.DataFrame(rows)


def _gains(by_step: pd.DataFrame, steps: Iterable[int]) -> dict[str, str]:
    row = {"before": _interval(by_step.loc[0], "return_mean", "ci95")}
    for step in steps:
        taken = step in by_step.index
        name = counted([step], "step")
        row[f"after {name}"] = f"{by_step['return_mean'][step]:.1f}" if taken else "-"
        row[f"gain of {name}"] = _interval(by_step.loc[step], "gain_mean", "gain_ci95") if taken else "-"
    return row


def _interval(row: Any, mean: str, ends: str) -> str:
    return f"{row[mean]:.1f} [{row[f'{ends}_low']:.1f}, {row[f'{ends}_high']:.1f}]"


def published_rows(comparison: pd.DataFrame, task: str) -> pd.DataFrame:
    """Return a task's rows of :func:`metalib.reporting.returns.beside_published` as the page shows them."""
    rows = comparison[comparison["task"] == task]
    return pd.DataFrame(
        [
            {
                "method": METHOD_STYLES[row["method"]].label,
                "steps": row["gradient_step"],
                "K, paper": row["published_rollouts"],
                "K, here": row["rollouts"],
                "paper": f"{row['published']:.1f} ± {row['published_halfwidth']:.1f}",
                "here": _interval(row, "return_mean", "ci95"),
                "here - paper": f"{row['difference']:+.1f}",
                "environment steps, paper": millions(row["published_env_steps"]),
                "environment steps, here": millions(row["env_steps"]),
            }
            for row in rows.to_dict("records")
        ]
    )


def millions(steps: Any) -> str:
    """Return a number of environment steps in millions; a dash where nobody says, 0 for none."""
    if pd.isna(steps):
        return "-"
    return f"{steps / 1e6:.3g} M" if steps else "0"


def training_shares(comparison: pd.DataFrame) -> list[str]:
    """Return for each task what share of the paper's environment steps MAML was trained for here."""
    known = comparison[(comparison["method"] == "maml") & comparison["published_env_steps"].notna()]
    return [
        f"{_percent(row['env_steps'] / row['published_env_steps'])} ({TASK_NAMES[row['task']]})"
        for row in known.drop_duplicates("task").to_dict("records")
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.2g}%" if share < 0.1 else f"{100 * share:.0f}%"


def at_other_k(drawn: pd.DataFrame) -> list[str]:
    """Return which published lines of adapting methods are drawn at another K than ours.

    For example "ant, direction: pretrained, random at K = 40".

    Args:
        drawn: of :func:`metalib.reporting.returns.drawn_beside`.
    """
    other = drawn[(drawn["published_rollouts"] != drawn["drawn_rollouts"]) & (drawn["gradient_step"] > 0)]
    return [
        f"{TASK_NAMES[str(task)]}: {', '.join(METHOD_STYLES[m].label for m in rows['method'].unique())} at K = {k}"
        for (task, k), rows in other.groupby(["task", "published_rollouts"], sort=False)
    ]
