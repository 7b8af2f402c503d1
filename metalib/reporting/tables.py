"""Tables of the report as data frames."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from metalib.randomness import generator
from metalib.reporting.published import read_table
from metalib.score_files import Scores
from metalib.statistics import summarise

PUBLISHED_COLUMNS = {"method", "train_shots", "test_shots", "gradient_steps", "mse", "source"}
METHODS = ("maml", "lstm", "pretrained", "scratch", "oracle")
"""The order of methods in every table and legend."""


def score_table(scores: Iterable[Scores], diverged_above: float, seed: int, bootstrap_samples: int) -> pd.DataFrame:
    """Return the long table: one row a method, K of training, K of test, query size and gradient step.

    Columns: method, train_shots (empty for methods not trained per K), test_shots, query_points,
    gradient_step, mse_mean, mse_median, ci95_low, ci95_high, seed_std, n_tasks, n_seeds, n_diverged; see
    :func:`metalib.statistics.summarise` for what they mean.
    """
    rows: list[dict[str, object]] = []
    for entry in scores:
        keys = {
            "method": entry.method,
            "train_shots": entry.train_shots,
            "test_shots": entry.test_shots,
            "query_points": entry.query_points,
        }
        numbers = generator(seed, f"bootstrap, {entry.name}")
        rows += [{**keys, **row} for row in error_rows(entry.values, diverged_above, numbers, bootstrap_samples)]
    table = pd.DataFrame(rows).astype({"train_shots": "Int64"})
    table["method"] = pd.Categorical(table["method"], METHODS, ordered=True)
    order = ["method", "train_shots", "test_shots", "query_points", "gradient_step"]
    return table.sort_values(order, ignore_index=True).astype({"method": "str"})


def error_rows(
    values: Tensor, diverged_above: float, numbers: torch.Generator, bootstrap_samples: int
) -> list[dict[str, float | int]]:
    """Return the statistics of mean squared errors ``[seed, task, gradient_step]``, a row a gradient step.

    Keys: gradient_step, mse_mean, mse_median, ci95_low, ci95_high, seed_std, n_tasks, n_seeds, n_diverged; see
    :func:`metalib.statistics.summarise`, whose other arguments these are.
    """
    n_seeds, n_tasks, n_steps = values.shape
    summary = summarise(values, diverged_above, numbers, bootstrap_samples)
    return [
        {
            "gradient_step": step,
            "mse_mean": summary.mean[step].item(),
            "mse_median": summary.median[step].item(),
            "ci95_low": summary.ci95_low[step].item(),
            "ci95_high": summary.ci95_high[step].item(),
            "seed_std": summary.seed_std[step].item(),
            "n_tasks": n_tasks,
            "n_seeds": n_seeds,
            "n_diverged": int(summary.n_diverged[step]),
        }
        for step in range(n_steps)
    ]


def left_out(row: Any) -> str:
    """Return how many pairs of task and seed of a row have diverged, of how many; empty where none has."""
    pairs = row["n_tasks"] * row["n_seeds"]
    return f"{row['n_diverged']:,} of {pairs:,}" if row["n_diverged"] else ""


def own_shots(table: pd.DataFrame, query_points: int) -> pd.DataFrame:
    """Return the rows judged on ``query_points`` points where a method trained per K is tested at that K."""
    same = table["train_shots"].isna() | (table["train_shots"] == table["test_shots"])
    return table[same & (table["query_points"] == query_points)]


def steps_needed(table: pd.DataFrame, targets: Sequence[float]) -> pd.DataFrame:
    """Return the fewest gradient steps after which the mean error is at most each target.

    Args:
        table: rows of :func:`own_shots`.
        targets: errors to reach.

    Returns:
        columns method, test_shots, and one a target; missing where the error is never reached.
    """
    rows = []
    for (method, shots), group in _groups(table, ["method", "test_shots"]):
        row: dict[str, object] = {"method": method, "test_shots": shots}
        for target in targets:
            reached = group[group["mse_mean"] <= target]["gradient_step"]
            row[f"{target:g}"] = None if reached.empty else int(reached.min())
        rows.append(row)
    return pd.DataFrame(rows)


def examples_needed(table: pd.DataFrame, targets: Sequence[float], steps: int) -> pd.DataFrame:
    """Return the fewest examples K with which the mean error is at most each target within ``steps`` steps.

    Columns method and one a target; missing where no tested K reaches it.
    """
    rows = []
    for (method,), group in _groups(table[table["gradient_step"] <= steps], ["method"]):
        row: dict[str, object] = {"method": method}
        for target in targets:
            reached = group[group["mse_mean"] <= target]["test_shots"]
            row[f"{target:g}"] = None if reached.empty else int(reached.min())
        rows.append(row)
    return pd.DataFrame(rows)


def _groups(table: pd.DataFrame, keys: list[str]) -> Iterable[tuple[tuple[object, ...], pd.DataFrame]]:
    for key, group in table.groupby(keys, sort=False):
        yield (key if isinstance(key, tuple) else (key,)), group


def beside_published(
    table: pd.DataFrame, anchors: Mapping[str, float], published: Path, query_points: int
) -> pd.DataFrame:
    """Return our figures beside the published ones.

    Args:
        table: the long table.
        anchors: our scores of predictors that know no task, by name.
        published: CSV with columns method, train_shots, test_shots, gradient_steps, mse, source.
        query_points: which of our rows to compare.

    Returns:
        columns method, train_shots, test_shots, gradient_step, published, ours, ci95_low, ci95_high,
        left_out (of :func:`left_out`), difference, source.
    """
    rows = []
    for row in read_table(published, PUBLISHED_COLUMNS).to_dict("records"):
        ours = _find(table, anchors, row, query_points)
        if ours is not None:
            keys = ("method", "train_shots", "test_shots", "source")
            rows.append(
                {
                    **{key: row[key] for key in keys},
                    "gradient_step": row["gradient_steps"],
                    "published": row["mse"],
                    **ours,
                    "difference": ours["ours"] - row["mse"],
                }
            )
    return pd.DataFrame(rows).astype({"train_shots": "Int64", "test_shots": "Int64"})


def _find(
    table: pd.DataFrame, anchors: Mapping[str, float], row: Mapping[Any, Any], query_points: int
) -> dict[str, Any] | None:
    """Return our figure for a published row, its interval and what it leaves out; None if we have none."""
    if row["method"] in anchors:
        return {"ours": anchors[row["method"]], "ci95_low": math.nan, "ci95_high": math.nan, "left_out": ""}
    found = table[
        (table["method"] == row["method"])
        & (table["train_shots"].isna() | (table["train_shots"] == row["train_shots"]))
        & (table["test_shots"] == row["test_shots"])
        & (table["query_points"] == query_points)
        & (table["gradient_step"] == row["gradient_steps"])
    ]
    if len(found) != 1:
        return None
    return {
        "ours": found["mse_mean"].item(),
        "ci95_low": found["ci95_low"].item(),
        "ci95_high": found["ci95_high"].item(),
        "left_out": left_out(found.iloc[0]),
    }


def headline_metrics(
    table: pd.DataFrame, anchors: Mapping[str, float], trained_steps: Mapping[str, int]
) -> dict[str, object]:
    """Return the figures for ``dvc metrics``: mean errors at each K, before and after 1 step and all steps.

    Of a method in ``trained_steps`` also after the inner steps that it was trained for.
    """
    metrics: dict[str, object] = dict(anchors)
    last = int(table["gradient_step"].max())
    for (method, shots), group in _groups(table, ["method", "test_shots"]):
        by_step = group.set_index("gradient_step")["mse_mean"]
        wanted = dict.fromkeys((0, 1, trained_steps.get(str(method), last), last))
        steps = [step for step in wanted if step in by_step.index]
        metrics[f"{method}_k{shots}"] = {f"mse_step{step}": finite(float(by_step[step])) for step in steps}
    return {"sinusoid": metrics}


def finite(value: float) -> float | None:
    """Return the value to four places; None, which JSON can hold, where all tasks have diverged."""
    return round(value, 4) if math.isfinite(value) else None
