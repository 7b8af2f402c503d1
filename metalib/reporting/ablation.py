"""What the report says on the ablation: the talk's conclusions on meta-learning, measured one at a time."""

from collections.abc import Iterable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib import ticker
from matplotlib.axes import Axes

from metalib.randomness import generator
from metalib.reporting.style import METHOD_STYLES, figure_style, png
from metalib.reporting.tables import error_rows, finite, left_out
from metalib.reporting.wording import counted
from metalib.score_files import OUTSIDE, ConditionScores

EXPERIMENTS = {"training_tasks": "distinct training tasks", "layers": "hidden layers", "units": "units a layer"}
"""Experiments that train a learner for each condition, and what their conditions count."""
ALL_TASKS = "all"
STUCK = 0.9
"""The share of the error before adaptation above which what is left after it shows that nothing was learned."""
NEAR = 1.25
"""An error up to this many times another is called near it."""


def ablation_table(
    scores: Iterable[ConditionScores], diverged_above: float, seed: int, bootstrap_samples: int
) -> pd.DataFrame:
    """Return the long table: one row an experiment, condition, method and gradient step.

    Columns: experiment, condition, method, gradient_step, mse_mean, mse_median, ci95_low, ci95_high, seed_std,
    n_tasks, n_seeds, n_diverged (see :func:`metalib.statistics.summarise`), zero_function (its error on these tasks).
    """
    rows: list[dict[str, object]] = []
    for entry in scores:
        keys = {"experiment": entry.experiment, "condition": entry.condition, "method": entry.method}
        # The same resampled tasks everywhere: conditions of an experiment share them.
        numbers = generator(seed, "bootstrap, ablation")
        rows += [
            {**keys, **row, "zero_function": entry.zero_function}
            for row in error_rows(entry.values, diverged_above, numbers, bootstrap_samples)
        ]
    return pd.DataFrame(rows)


def _stuck(table: pd.DataFrame, steps: int) -> list[str]:
    """Return the numbers of hidden layers with which adapting gains next to nothing: training has not begun."""
    before, after = (_by_condition(table[table["gradient_step"] == step], "layers") for step in (0, steps))
    return [str(layers) for layers in after.index if after[layers] > STUCK * before[layers]]


def report_context(table: pd.DataFrame) -> dict[str, Any]:
    """Return the values of ``ablation.md.j2`` that come from the long table."""
    steps = int(table["gradient_step"].max())
    last = table[table["gradient_step"] == steps]
    by_tasks = _by_condition(last, "training_tasks")
    tried = sorted(int(n) for n in by_tasks.index if n != ALL_TASKS)
    enough = [n for n in tried if by_tasks[str(n)] <= NEAR * by_tasks[ALL_TASKS]]
    outside = last[last["experiment"] == OUTSIDE]
    return {
        "steps": steps,
        "n_tasks": int(table["n_tasks"].max()),
        "seeds": counted(last.loc[last["experiment"] == "training_tasks", "n_seeds"], "training seed"),
        "fewest": tried[0],
        "error_fewest": by_tasks[str(tried[0])],
        "error_all": by_tasks[ALL_TASKS],
        "enough": enough[0] if enough else None,
        "near_percent": round(100 * (NEAR - 1)),
        "layers": _by_condition(last, "layers").to_dict(),
        "units": _by_condition(last, "units").to_dict(),
        "stuck": _stuck(table, steps),
        "outside": {
            str(condition): {METHOD_STYLES[str(row["method"])].label: _share(row) for _, row in rows.iterrows()}
            for condition, rows in outside.groupby("condition", sort=False)
        },
        "left_out": [
            f"{diverged} ({row['condition']}, {METHOD_STYLES[str(row['method'])].label})"
            for _, row in outside.iterrows()
            if (diverged := left_out(row))
        ],
        "conditions_table": _conditions_table(table, steps),
        "outside_table": _outside_table(table, steps),
    }


def headline_metrics(table: pd.DataFrame) -> dict[str, Any]:
    """Return the figures for ``dvc metrics``: each condition's mean error after the last step."""
    last = table[table["gradient_step"] == table["gradient_step"].max()]
    metrics: dict[str, Any] = {}
    for row in last.to_dict("records"):
        name = row["condition"] if row["experiment"] != OUTSIDE else f"{row['condition']}, {row['method']}"
        metrics.setdefault(row["experiment"], {})[name] = finite(row["mse_mean"])
    return metrics


def _by_condition(last: pd.DataFrame, experiment: str) -> "pd.Series[float]":
    rows = last[last["experiment"] == experiment]
    return rows.set_index("condition")["mse_mean"]


def _share(row: Any) -> float:
    """Return the error as a share of the zero function's on the same tasks."""
    return float(row["mse_mean"] / row["zero_function"])


def _conditions_table(table: pd.DataFrame, steps: int) -> pd.DataFrame:
    rows = []
    for experiment, label in EXPERIMENTS.items():
        here = table[table["experiment"] == experiment]
        for condition, group in here.groupby("condition", sort=False):
            rows.append({"varied": label, "value": str(condition), **_errors(group, steps)})
    return pd.DataFrame(rows)


def _outside_table(table: pd.DataFrame, steps: int) -> pd.DataFrame:
    rows = []
    here = table[table["experiment"] == OUTSIDE]
    for (condition, method), group in here.groupby(["condition", "method"], sort=False):
        last = group.set_index("gradient_step").loc[steps]
        row: dict[str, Any] = {"test tasks": str(condition), "method": METHOD_STYLES[str(method)].label}
        row["zero function"] = last["zero_function"]
        row |= _errors(group, steps)
        rows.append({**row, f"step {steps} / zero function": _share(last)})
    return pd.DataFrame(rows)


def _errors(group: pd.DataFrame, steps: int) -> dict[str, Any]:
    """Return the error before, after one and after all steps with intervals, the seed spread and what diverged."""
    by_step = group.set_index("gradient_step")
    row: dict[str, Any] = {}
    for step in dict.fromkeys((0, 1, steps)):
        at = by_step.loc[step]
        row[f"step {step}"] = f"{at['mse_mean']:.3f} [{at['ci95_low']:.3f}, {at['ci95_high']:.3f}]"
    last = by_step.loc[steps]
    return {**row, "seed spread": last["seed_std"], "diverged": last["n_diverged"]}


def conclusions(table: pd.DataFrame) -> bytes:
    """Draw error against training tasks, layers and units, and how much of it is left on tasks unlike training's."""
    steps = int(table["gradient_step"].max())
    with figure_style():
        figure, grid = plt.subplots(2, 2, figsize=(9, 6.4))
        for axes, (experiment, label) in zip(grid.flat, EXPERIMENTS.items(), strict=False):
            _draw_experiment(axes, table[table["experiment"] == experiment], steps)
            axes.set(xlabel=label, ylabel="mean squared error", yscale="log")
            axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
            axes.yaxis.set_minor_formatter(ticker.NullFormatter())
        grid[0][0].legend(loc="center right", bbox_to_anchor=(1.0, 0.68))  # where no curve passes
        _draw_outside(grid[1][1], table[(table["experiment"] == OUTSIDE) & (table["gradient_step"] == steps)])
        return png(figure)


def _draw_experiment(axes: Axes, rows: pd.DataFrame, steps: int) -> None:
    conditions = list(dict.fromkeys(rows["condition"]))
    color = METHOD_STYLES["maml"].color
    drawn = {0: (":", "before adaptation"), 1: ("--", "after 1 step"), steps: ("-", f"after {steps} steps")}
    for step, (line, name) in drawn.items():
        here = rows[rows["gradient_step"] == step].set_index("condition").loc[conditions]
        spread = np.abs(here[["ci95_low", "ci95_high"]].to_numpy().T - here["mse_mean"].to_numpy())
        axes.errorbar(
            range(len(conditions)), here["mse_mean"], spread, color=color, linestyle=line, marker="o", ms=4, label=name
        )
    axes.set_xticks(range(len(conditions)), conditions)


def _draw_outside(axes: Axes, rows: pd.DataFrame) -> None:
    conditions = list(dict.fromkeys(rows["condition"]))
    methods = list(dict.fromkeys(rows["method"]))
    for index, method in enumerate(methods):
        here = rows[rows["method"] == method].set_index("condition").loc[conditions]
        style, zero = METHOD_STYLES[method], here["zero_function"].to_numpy()
        spread = np.abs(here[["ci95_low", "ci95_high"]].to_numpy().T - here["mse_mean"].to_numpy()) / zero
        place = np.arange(len(conditions)) + 0.15 * (index - (len(methods) - 1) / 2)
        axes.errorbar(
            place,
            here["mse_mean"] / zero,
            spread,
            color=style.color,
            marker=style.marker,
            linestyle="",
            capsize=3,
            label=style.label,
        )
    axes.axhline(1, color="black", linewidth=1, linestyle=":", label="zero function")
    axes.set_xticks(range(len(conditions)), [name.replace(" ", "\n", 1) for name in conditions])
    axes.set(xlabel="test tasks", ylabel="error / error of the zero function", ylim=(0, None))
    axes.set_ylim(top=1.25 * axes.get_ylim()[1])  # room for the legend
    axes.legend(fontsize=8, ncols=2, loc="upper left")
