"""Figures of the report, each a function from stored data to PNG bytes."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib import ticker
from matplotlib.axes import Axes
from torch import Tensor

from metalib.losses import Batch
from metalib.reporting.style import METHOD_STYLES, SHOT_COLORS, figure_style, png, smooth
from metalib.reporting.tables import METHODS


def regression(query: Batch, support: Batch, predicted: Mapping[str, Tensor], steps: tuple[int, ...]) -> bytes:
    """Draw sines and what each method makes of them, before and after adaptation (figure 2 of the paper).

    Args:
        query: the true functions on a grid, x and y ``[tasks, n, 1]``.
        support: what is adapted on, x and y ``[tasks, k, 1]``.
        predicted: for each method ``[tasks, steps + 1, n]``; one row of panels each.
        steps: which gradient steps to draw; the first is drawn dotted, the last solid.
    """
    n_tasks = len(query.x)
    with figure_style():
        figure, grid = plt.subplots(
            len(predicted),
            n_tasks,
            figsize=(3.4 * n_tasks, 2.5 * len(predicted)),
            sharex=True,
            sharey=True,
            squeeze=False,
        )
        for axes_row, (method, curves) in zip(grid, predicted.items(), strict=True):
            style = METHOD_STYLES[method]
            for task, axes in enumerate(axes_row):
                x = query.x[task, :, 0]
                axes.plot(x, query.y[task, :, 0], color="black", linewidth=1.2, label="truth")
                for index, step in enumerate(steps):
                    share = (index + 1) / len(steps)
                    line = (":", "--", "-")[index * 2 // max(len(steps) - 1, 1)]
                    label = f"after {step} step{'s' * (step != 1)}" if step else "before adaptation"
                    axes.plot(x, curves[task, step], line, color=style.color, alpha=0.35 + 0.65 * share, label=label)
                axes.plot(
                    support.x[task, :, 0],
                    support.y[task, :, 0],
                    "o",
                    color="#E69F00",
                    mec="black",
                    ms=5,
                    label="support",
                )
            axes_row[0].set_ylabel(f"{style.label}\ny")
            axes_row[-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
        for axes in grid[-1]:
            axes.set_xlabel("x")
        return png(figure)


def error_against_steps(table: pd.DataFrame, anchors: Mapping[str, float]) -> bytes:
    """Draw mean squared error against gradient steps, a panel for each K (figure 3 of the paper).

    Args:
        table: rows of :func:`metalib.reporting.tables.own_shots`.
        anchors: errors of predictors that know no task, by name.
    """
    shots = sorted(table["test_shots"].unique())
    with figure_style():
        figure, grid = plt.subplots(1, len(shots), figsize=(3.6 * len(shots), 3.4), sharey=True, squeeze=False)
        for axes, k in zip(grid[0], shots, strict=True):
            for method in METHODS:
                rows = table[(table["method"] == method) & (table["test_shots"] == k)]
                if not rows.empty:
                    _draw_method(axes, method, rows)
            axes.axhline(
                anchors["best_non_adapting"], color="black", linewidth=1, linestyle=":", label="best without adapting"
            )
            axes.set(title=f"K = {k} examples", xlabel="gradient steps", yscale="log")
        grid[0][0].set_ylabel("mean squared error")
        _plain_log_ticks(grid[0][0])
        handles, labels = grid[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
        return png(figure)


def _draw_method(axes: Axes, method: str, rows: pd.DataFrame) -> None:
    style = METHOD_STYLES[method]
    if len(rows) == 1:  # does not adapt: one error, whatever the step
        row = rows.iloc[0]
        axes.axhline(row["mse_mean"], color=style.color, linestyle="--", label=f"{style.label} (told the task)")
        axes.axhspan(row["ci95_low"], row["ci95_high"], color=style.color, alpha=0.2, linewidth=0)
        return
    axes.plot(
        rows["gradient_step"],
        rows["mse_mean"],
        color=style.color,
        marker=style.marker,
        markersize=4,
        label=style.label,
    )
    axes.fill_between(
        rows["gradient_step"], rows["ci95_low"], rows["ci95_high"], color=style.color, alpha=0.2, linewidth=0
    )


def error_against_examples(table: pd.DataFrame, steps: tuple[int, ...]) -> bytes:
    """Draw mean squared error against K, a panel for each of ``steps`` gradient steps."""
    with figure_style():
        figure, grid = plt.subplots(1, len(steps), figsize=(3.6 * len(steps), 3.2), sharey=True, squeeze=False)
        for axes, step in zip(grid[0], steps, strict=True):
            for method in METHODS:
                rows = table[(table["method"] == method) & table["gradient_step"].isin([step])].sort_values(
                    "test_shots"
                )
                if rows.empty:
                    continue
                style = METHOD_STYLES[method]
                spread = np.abs(rows[["ci95_low", "ci95_high"]].to_numpy().T - rows["mse_mean"].to_numpy())
                axes.errorbar(
                    rows["test_shots"],
                    rows["mse_mean"],
                    spread,
                    color=style.color,
                    marker=style.marker,
                    capsize=3,
                    label=style.label,
                )
            shots = sorted(table["test_shots"].unique())
            axes.set(title=f"after {step} step{'s' * (step != 1)}", xlabel="examples K", yscale="log", xscale="log")
            axes.set_xticks(shots, [str(k) for k in shots], minor=False)
            axes.minorticks_off()
        grid[0][0].set_ylabel("mean squared error")
        _plain_log_ticks(grid[0][0])
        handles, labels = grid[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
        return png(figure)


def training_curves(learners: Mapping[str, pd.DataFrame], baselines: Mapping[str, pd.DataFrame]) -> bytes:
    """Draw the training losses: meta-learners' query loss after adaptation for each K, and the baselines' loss.

    Args:
        learners: for each meta-learner columns step, k<K> for each K; a panel each.
        baselines: for each method columns step and loss; one panel.
    """
    with figure_style():
        n = len(learners) + 1
        figure, panels = plt.subplots(1, n, figsize=(4.2 * n, 3.2), sharey=True)
        for axes, (method, curves) in zip(panels, learners.items(), strict=False):
            for name, color in zip([c for c in curves.columns if c != "step"], SHOT_COLORS, strict=False):
                axes.plot(curves["step"], smooth(curves[name]), color=color, label=f"K = {name.removeprefix('k')}")
            title = f"{METHOD_STYLES[method].label}: query loss after adaptation"
            axes.set(title=title, xlabel="meta-step", yscale="log")
        for method, curve in baselines.items():
            style = METHOD_STYLES[method]
            panels[-1].plot(curve["step"], smooth(curve["loss"]), color=style.color, label=style.label)
        panels[-1].set(title="baselines: training loss", xlabel="step")
        panels[0].set_ylabel("mean squared error")
        _plain_log_ticks(panels[0])
        for axes in panels:
            axes.legend()
        return png(figure)


def _plain_log_ticks(axes: Axes) -> None:
    """Label a logarithmic error axis at 1, 2 and 5 of each decade, as plain numbers."""
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    axes.yaxis.set_minor_formatter(ticker.NullFormatter())
