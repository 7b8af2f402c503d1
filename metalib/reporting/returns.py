"""Returns of policies as data frames: the long table, the published rows beside it, and the metrics."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from metalib.randomness import generator
from metalib.reporting.published import read_table
from metalib.return_files import METHODS, TASKS, Returns
from metalib.statistics import summarise

PUBLISHED_COLUMNS = {
    "task",
    "method",
    "rollouts",
    "gradient_step",
    "return_mean",
    "ci95_halfwidth",
    "env_steps",
    "source",
}
_KEYS = ["task", "method", "rollouts", "gradient_step"]
_PUBLISHED_KEYS = ["task", "method", "published_rollouts", "gradient_step"]


def return_table(returns: Iterable[Returns], seed: int, bootstrap_samples: int) -> pd.DataFrame:
    """Return the long table: one row a task, method, K and gradient step.

    Columns: task, method, rollouts, gradient_step, return_mean, ci95_low, ci95_high, gain_mean, gain_ci95_low,
    gain_ci95_high, n_goals, n_seeds, env_steps. The gain is a goal's return less its own return before adaptation, so
    that goals, which differ far more than methods do, do not blur it. Each goal is averaged over its seeds, then
    goals; the 95% intervals are percentile bootstraps over goals (:func:`metalib.statistics.summarise`).
    """
    rows = [row for entry in returns for row in _rows(entry, seed, bootstrap_samples)]
    return _sorted(pd.DataFrame(rows), _KEYS)


def _rows(entry: Returns, seed: int, bootstrap_samples: int) -> list[dict[str, Any]]:
    n_seeds, n_goals, n_steps = entry.values.shape
    gains = entry.values - entry.values[:, :, :1]
    name = f"{entry.task}, {entry.method}, K = {entry.rollouts}"
    whole = summarise(entry.values, math.inf, generator(seed, f"bootstrap, returns, {name}"), bootstrap_samples)
    gain = summarise(gains, math.inf, generator(seed, f"bootstrap, gains, {name}"), bootstrap_samples)
    return [
        {
            "task": entry.task,
            "method": entry.method,
            "rollouts": entry.rollouts,
            "gradient_step": step,
            "return_mean": whole.mean[step].item(),
            "ci95_low": whole.ci95_low[step].item(),
            "ci95_high": whole.ci95_high[step].item(),
            "gain_mean": gain.mean[step].item(),
            "gain_ci95_low": gain.ci95_low[step].item(),
            "gain_ci95_high": gain.ci95_high[step].item(),
            "n_goals": n_goals,
            "n_seeds": n_seeds,
            "env_steps": entry.env_steps,
        }
        for step in range(n_steps)
    ]


def _sorted(table: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    for column, order in (("task", TASKS), ("method", METHODS)):
        table[column] = pd.Categorical(table[column], order, ordered=True)
    return table.sort_values(keys, ignore_index=True).astype({"task": "str", "method": "str"})


def at_smallest_k(table: pd.DataFrame) -> pd.DataFrame:
    """Return of each task and method the rows with its smallest K, of :func:`return_table` or a part of it."""
    return table[table["rollouts"] == table.groupby(["task", "method"])["rollouts"].transform("min")]


def at_largest_k(table: pd.DataFrame) -> pd.DataFrame:
    """Return of each task and method the rows with its largest K, where that is not its smallest as well."""
    of_method = table.groupby(["task", "method"])["rollouts"]
    largest = of_method.transform("max")
    return table[(table["rollouts"] == largest) & (largest > of_method.transform("min"))]


def beside_published(table: pd.DataFrame, published: Path) -> pd.DataFrame:
    """Return each published row that was measured here too, with our row at the K nearest to the published one.

    That is our row at the same K where there is one; of two K equally near, the smaller.

    Args:
        table: of :func:`return_table`.
        published: CSV with the columns :data:`PUBLISHED_COLUMNS`.

    Returns:
        the columns of ``table``, and of the published row: published, published_halfwidth, published_rollouts,
        published_env_steps (missing where nobody says), source; and ``difference``, ours - published. Sorted by task,
        method, published K and gradient step.

    Raises:
        StorageError: the file is missing, is no table, or lacks a column.
    """
    theirs = read_table(published, PUBLISHED_COLUMNS).rename(
        columns={
            "return_mean": "published",
            "ci95_halfwidth": "published_halfwidth",
            "rollouts": "published_rollouts",
            "env_steps": "published_env_steps",
        }
    )
    both = table.merge(theirs.drop(columns="n_goals", errors="ignore"), on=["task", "method", "gradient_step"])
    both["distance"] = (both["rollouts"] - both["published_rollouts"]).abs()
    nearest = both.sort_values(["distance", "rollouts"], kind="stable").drop_duplicates(_PUBLISHED_KEYS)
    nearest = nearest.assign(
        difference=nearest["return_mean"] - nearest["published"],
        published_env_steps=nearest["published_env_steps"].astype("Int64"),
    )
    return _sorted(nearest.drop(columns="distance"), _PUBLISHED_KEYS)


def drawn_beside(table: pd.DataFrame, comparison: pd.DataFrame) -> pd.DataFrame:
    """Return the published rows that stand in a figure beside our rows of the smallest K: those with the nearest K.

    Of two published K equally near, the smaller.

    Args:
        table: of :func:`return_table` or a part of it.
        comparison: of :func:`beside_published`.

    Returns:
        rows of ``comparison`` with the tasks of ``table``, and ``drawn_rollouts``, the K of our line.
    """
    ours = at_smallest_k(table)[["task", "method", "rollouts"]].drop_duplicates()
    both = comparison.merge(ours.rename(columns={"rollouts": "drawn_rollouts"}), on=["task", "method"])
    distance = (both["published_rollouts"] - both["drawn_rollouts"]).abs()
    nearest = both.assign(distance=distance).sort_values(["distance", "published_rollouts"], kind="stable")
    return _sorted(nearest.drop_duplicates(["task", "method", "gradient_step"]).drop(columns="distance"), _KEYS)


def headline_metrics(table: pd.DataFrame) -> dict[str, dict[str, dict[str, float | None]]]:
    """Return the figures for ``dvc metrics``, by task and method: returns after 0 and 1 steps, and the gain of 1.

    They are those at the method's smallest K.
    """
    metrics: dict[str, dict[str, dict[str, float | None]]] = {}
    smallest = at_smallest_k(table)
    for row in smallest[smallest["gradient_step"] <= 1].to_dict("records"):
        found = metrics.setdefault(row["task"], {}).setdefault(row["method"], {})
        found[f"return_step{row['gradient_step']}"] = _finite(row["return_mean"])
        if row["gradient_step"] == 1:
            found["gain_step1"] = _finite(row["gain_mean"])
    return metrics


def _finite(value: float) -> float | None:
    """Return the value to two places; None, which JSON can hold, where no return is finite."""
    return round(value, 2) if math.isfinite(value) else None
