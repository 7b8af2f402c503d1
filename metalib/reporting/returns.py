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


def return_table(returns: Iterable[Returns], seed: int, bootstrap_samples: int) -> pd.DataFrame:
    """Return the long table: one row a task, method, K and gradient step.

    Columns: task, method, rollouts, gradient_step, return_mean, ci95_low, ci95_high, gain_mean, gain_ci95_low,
    gain_ci95_high, n_goals, n_seeds, env_steps. The gain is a goal's return less its own return before adaptation, so
    that goals, which differ far more than methods do, do not blur it. Each goal is averaged over its seeds, then
    goals; the 95% intervals are percentile bootstraps over goals (:func:`metalib.statistics.summarise`).
    """
    rows = [row for entry in returns for row in _rows(entry, seed, bootstrap_samples)]
    return _sorted(pd.DataFrame(rows))


def _rows(entry: Returns, seed: int, bootstrap_samples: int) -> list[dict[str, Any]]:
    n_seeds, n_goals, n_steps = entry.values.shape
    gains = entry.values - entry.values[:, :, :1]
    name = f"{entry.task}, {entry.method}"
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


def _sorted(table: pd.DataFrame) -> pd.DataFrame:
    for column, order in (("task", TASKS), ("method", METHODS)):
        table[column] = pd.Categorical(table[column], order, ordered=True)
    return table.sort_values(_KEYS, ignore_index=True).astype({"task": "str", "method": "str"})


def beside_published(table: pd.DataFrame, published: Path) -> pd.DataFrame:
    """Return the published rows that have a row of ours beside them.

    Where a published method was evaluated with several K, the row with our K is taken, else that with the largest.

    Args:
        table: of :func:`return_table`.
        published: CSV with the columns :data:`PUBLISHED_COLUMNS`.

    Returns:
        the columns of ``table``, and of the published row: published, published_halfwidth, published_rollouts,
        published_env_steps (missing where nobody says), source; and ``difference``, ours - published.

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
    both["same_k"] = both["rollouts"] == both["published_rollouts"]
    best = both.sort_values(["same_k", "published_rollouts"], kind="stable").drop_duplicates(_KEYS, keep="last")
    best = best.assign(
        difference=best["return_mean"] - best["published"],
        published_env_steps=best["published_env_steps"].astype("Int64"),
    )
    return _sorted(best.drop(columns="same_k"))


def headline_metrics(table: pd.DataFrame) -> dict[str, dict[str, dict[str, float | None]]]:
    """Return the figures for ``dvc metrics``, by task and method: returns after 0 and 1 steps, and the gain of 1."""
    metrics: dict[str, dict[str, dict[str, float | None]]] = {}
    for row in table[table["gradient_step"] <= 1].to_dict("records"):
        found = metrics.setdefault(row["task"], {}).setdefault(row["method"], {})
        found[f"return_step{row['gradient_step']}"] = _finite(row["return_mean"])
        if row["gradient_step"] == 1:
            found["gain_step1"] = _finite(row["gain_mean"])
    return metrics


def _finite(value: float) -> float | None:
    """Return the value to two places; None, which JSON can hold, where no return is finite."""
    return round(value, 2) if math.isfinite(value) else None
