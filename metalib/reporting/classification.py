"""What the report on few-shot classification says: tables from stored accuracies and settings."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from metalib.randomness import generator
from metalib.reporting.published import read_table
from metalib.reporting.style import METHOD_STYLES
from metalib.score_files import Accuracies
from metalib.statistics import summarise
from metalib.tasks.image_tasks import BESIDE_TEST

METHODS = ("maml", "lstm", "prototypical", "pretrained", "scratch", "nearest_neighbour")
"""The order of methods in every table and legend."""
PUBLISHED_COLUMNS = {"dataset", "method", "way", "shot", "accuracy_percent", "ci95_halfwidth", "source"}


def accuracy_table(accuracies: Iterable[Accuracies], dataset: str, seed: int, bootstrap_samples: int) -> pd.DataFrame:
    """Return the long table: one row a method, way, shot and gradient step.

    Columns: dataset, method, way, shot, gradient_step, accuracy_mean, ci95_low, ci95_high (bootstrap over
    episodes), seed_std, n_episodes, n_seeds; accuracies in 0..1. Methods that take no gradient steps have step 0 only.
    """
    rows = []
    for entry in accuracies:
        n_seeds, n_episodes, n_steps = entry.values.shape
        numbers = generator(seed, f"bootstrap, {entry.name}")
        summary = summarise(entry.values, 1.0, numbers, bootstrap_samples)
        for step in range(n_steps):
            rows.append(
                {
                    "dataset": dataset,
                    "method": entry.method,
                    "way": entry.way,
                    "shot": entry.shot,
                    "gradient_step": step,
                    "accuracy_mean": summary.mean[step].item(),
                    "ci95_low": summary.ci95_low[step].item(),
                    "ci95_high": summary.ci95_high[step].item(),
                    "seed_std": summary.seed_std[step].item(),
                    "n_episodes": n_episodes,
                    "n_seeds": n_seeds,
                }
            )
    table = pd.DataFrame(rows)
    table["method"] = pd.Categorical(table["method"], METHODS, ordered=True)
    keys = ["way", "shot", "method", "gradient_step"]
    return table.sort_values(keys, ignore_index=True).astype({"method": "str"})


def own_steps(accuracies: Iterable[Accuracies]) -> dict[tuple[str, int, int], int]:
    """Return for each method, way and shot after how many steps it is judged.

    The LSTM meta-learner after the T updates it was trained for; others after the last step that was taken.
    """
    steps = {}
    for entry in accuracies:
        last = entry.values.shape[2] - 1
        trained_for = entry.train_steps if entry.method == "lstm" and entry.train_steps else last
        steps[entry.method, entry.way, entry.shot] = min(trained_for, last)
    return steps


def summary_table(table: pd.DataFrame, steps: Mapping[tuple[str, int, int], int]) -> pd.DataFrame:
    """Return accuracies in percent before adaptation, after one step, and after the steps of :func:`own_steps`."""
    rows = []
    for way, shot, method in table[["way", "shot", "method"]].drop_duplicates().itertuples(index=False, name=None):
        by_step = _rows(table, way, shot, method).set_index("gradient_step")
        judged = steps[method, way, shot]
        row: dict[str, Any] = {"task": f"{way}-way {shot}-shot", "method": METHOD_STYLES[method].label}
        row["before"] = _percent(by_step.loc[0]) if judged else "-"
        row["after 1 step"] = _percent(by_step.loc[1]) if judged else "-"
        row["accuracy, %"] = _percent(by_step.loc[judged])
        spread = float(by_step["seed_std"][judged])
        rows.append({**row, "steps": judged, "seed spread": "-" if math.isnan(spread) else f"{100 * spread:.1f}"})
    return pd.DataFrame(rows)


def _percent(row: Any) -> str:
    return _interval(row["accuracy_mean"], row["ci95_low"], row["ci95_high"])


def _interval(mean: float, low: float, high: float) -> str:
    return f"{100 * mean:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def splits_table(
    table: pd.DataFrame,
    steps: Mapping[tuple[str, int, int], int],
    beside: Mapping[str, Mapping[str, Tensor]],
    seed: int,
    bootstrap_samples: int,
) -> pd.DataFrame:
    """Return accuracies in percent by split: on training and validation classes, and on those of the test.

    Args:
        table: of :func:`accuracy_table`.
        steps: of :func:`own_steps`.
        beside: for each method the accuracies ``[seed, episode]`` by ``<way>way-<shot>shot-<split>``.
        seed: of the bootstrap.
        bootstrap_samples: resamples of episodes.
    """
    rows = []
    for way, shot, method in table[["way", "shot", "method"]].drop_duplicates().itertuples(index=False, name=None):
        row = {"task": f"{way}-way {shot}-shot", "method": METHOD_STYLES[method].label}
        for split in BESIDE_TEST:
            name = f"{way}way-{shot}shot-{split}"
            numbers = generator(seed, f"bootstrap, {method}-{name}")
            found = summarise(beside[method][name][..., None], 1.0, numbers, bootstrap_samples)
            row[f"{split}, %"] = _interval(found.mean[0].item(), found.ci95_low[0].item(), found.ci95_high[0].item())
        by_step = _rows(table, way, shot, method).set_index("gradient_step")
        rows.append({**row, "test, %": _percent(by_step.loc[steps[method, way, shot]])})
    return pd.DataFrame(rows)


def published_rows(published: Path, dataset: str) -> pd.DataFrame:
    """Return what others published for this dataset; empty for Glyphs, which is made here."""
    table = read_table(published, PUBLISHED_COLUMNS)
    rows = table[table["dataset"] == dataset].drop(columns="dataset")
    return rows.rename(columns={"accuracy_percent": "accuracy, %", "ci95_halfwidth": "± 95%"})


def headline(table: pd.DataFrame, steps: Mapping[tuple[str, int, int], int]) -> list[dict[str, Any]]:
    """Return for each condition every method's accuracy after its own steps, in percent."""
    found = []
    for way, shot in table[["way", "shot"]].drop_duplicates().itertuples(index=False, name=None):
        accuracy = {}
        for method in METHODS:
            rows = _rows(table, way, shot, method)
            if not rows.empty:
                accuracy[method] = 100 * float(
                    rows.set_index("gradient_step")["accuracy_mean"][steps[method, way, shot]]
                )
        found.append({"way": way, "shot": shot, "accuracy": accuracy})
    return found


def headline_metrics(table: pd.DataFrame, steps: Mapping[tuple[str, int, int], int]) -> dict[str, Any]:
    """Return the figures for ``dvc metrics``: accuracies in 0..1 after each method's own steps."""
    return {
        f"{row['way']}way_{row['shot']}shot": {m: round(a / 100, 6) for m, a in row["accuracy"].items()}
        for row in headline(table, steps)
    }


def _rows(table: pd.DataFrame, way: int, shot: int, method: str) -> pd.DataFrame:
    return table[(table["way"] == way) & (table["shot"] == shot) & (table["method"] == method)]


def rates_table(rates: Mapping[str, Mapping[str, Mapping[str, float | None]]]) -> pd.DataFrame:
    """Return the error rates on validation episodes by fine-tuning rate, and the chosen rate."""
    rows = []
    for method, by_condition in rates.items():
        for condition, tried in by_condition.items():
            errors = {f"rate {rate}": error for rate, error in tried.items() if rate != "chosen"}
            ordered = dict(sorted(errors.items(), key=lambda item: float(item[0].removeprefix("rate "))))
            row = {"method": METHOD_STYLES[method].label, "task": condition, "chosen rate": f"{tried['chosen']:g}"}
            rows.append({**row, **ordered})
    return pd.DataFrame(rows)
