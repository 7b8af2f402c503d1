"""Figures of locomotion, each a function from stored data to PNG bytes."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from metalib.reporting.locomotion import DIRECTION_TASKS, TASK_NAMES
from metalib.reporting.returns import at_largest_k, at_smallest_k, drawn_beside
from metalib.reporting.style import METHOD_STYLES, MethodStyle, figure_style, png, smooth
from metalib.reporting.wording import counted, either
from metalib.return_files import METHODS, Speeds

Stroke = Literal["-", "--", ":", ""]
_APART = 0.05  # gradient steps between the markers of two methods, so that their bars do not cover each other
_ENTRY_INCHES = 1.65  # that an entry of a legend takes
_HOLLOW = {"markerfacecolor": "white", "alpha": 0.75}


def return_against_steps(table: pd.DataFrame, comparison: pd.DataFrame) -> bytes:
    """Draw mean returns against gradient steps, a panel for each task (figure 5 of the paper).

    Every method stands with its smallest K. MAML's largest is a thin dotted line beside it.

    Args:
        table: of :func:`metalib.reporting.returns.return_table`; its tasks are drawn.
        comparison: published rows of :func:`metalib.reporting.returns.beside_published`; of each method those with the
            K nearest to ours are drawn, dashed and hollow.
    """
    tasks = list(table["task"].unique())
    ours, drawn = at_smallest_k(table), drawn_beside(table, comparison)
    larger = at_largest_k(table[table["method"] == "maml"])
    with figure_style():
        figure, panels = _panels(tasks, 3.4)
        for axes, task in zip(panels, tasks, strict=True):
            for index, method in enumerate(METHODS):
                offset = (index - (len(METHODS) - 1) / 2) * _APART
                _ours(axes, method, _of(ours, task, method), offset)
                _larger_k(axes, method, _of(larger, task, method), offset)
                _published(axes, method, _of(drawn, task, method), offset)
            last = int(table["gradient_step"].max())
            axes.set(xlabel="gradient steps", xticks=range(last + 1), xlim=(-0.2, last + 0.2))
        methods = [_method_handle(method) for method in METHODS if method in set(table["method"])]
        more_rollouts = f"MAML, K = {either(larger['rollouts'])}"
        dotted = [_line(more_rollouts, METHOD_STYLES["maml"].color, ":", linewidth=1.2)] if len(larger) else []
        theirs = [_line("Finn et al. 2017", "black", "--", "o", **_HOLLOW)] if len(drawn) else []
        _legend(figure, methods + dotted + theirs)
        return png(figure)


def _of(table: pd.DataFrame, task: str, method: str) -> pd.DataFrame:
    return table[(table["task"] == task) & (table["method"] == method)]


def _ours(axes: Axes, method: str, rows: pd.DataFrame, offset: float) -> None:
    style = METHOD_STYLES[method]
    if len(rows) == 1:  # does not adapt: one return, whatever the step
        row = rows.iloc[0]
        axes.axhline(row["return_mean"], color=style.color)
        axes.axhspan(row["ci95_low"], row["ci95_high"], color=style.color, alpha=0.15, linewidth=0)
        return
    x = rows["gradient_step"] + offset
    axes.plot(x, rows["return_mean"], color=style.color, marker=style.marker, markersize=5)
    axes.fill_between(x, rows["ci95_low"], rows["ci95_high"], color=style.color, alpha=0.15, linewidth=0)


def _larger_k(axes: Axes, method: str, rows: pd.DataFrame, offset: float) -> None:
    x = rows["gradient_step"] + offset
    axes.plot(x, rows["return_mean"], ":", color=METHOD_STYLES[method].color, linewidth=1.2)


def _published(axes: Axes, method: str, rows: pd.DataFrame, offset: float) -> None:
    style = METHOD_STYLES[method]
    if len(rows) == 1:
        axes.axhline(rows.iloc[0]["published"], color=style.color, linestyle="--", alpha=0.75)
    elif len(rows):
        x, halfwidth = rows["gradient_step"] + offset, rows["published_halfwidth"]
        look: dict[str, Any] = {"color": style.color, "marker": style.marker, "markersize": 5, **_HOLLOW}
        axes.errorbar(x, rows["published"], halfwidth, linestyle="--", linewidth=1.2, elinewidth=0.8, **look)


def learning_curves(curves: Mapping[str, Mapping[str, pd.DataFrame]]) -> bytes:
    """Draw returns while training against environment steps, a panel for each task.

    Args:
        curves: by task and method columns env_steps and validation_return (empty where not measured); of maml
            return_before and return_after one gradient step, of others return. Drawn smoothed over a fiftieth.
    """
    with figure_style():
        figure, panels = _panels(list(curves), 3.0)
        for axes, by_method in zip(panels, curves.values(), strict=True):
            for method, curve in by_method.items():
                _curve(axes, METHOD_STYLES[method], curve)
            axes.set(xlabel="environment steps (millions)", xlim=(0, None))
        methods = dict.fromkeys(method for by_method in curves.values() for method in by_method)
        blue = METHOD_STYLES["maml"].color
        handles = [
            _line("MAML, after one step", blue, "-"),
            _line("MAML, before", blue, ":"),
            *(_line(METHOD_STYLES[m].label, METHOD_STYLES[m].color, "-") for m in methods if m != "maml"),
            _line("on validation goals", "black", "", "o", markerfacecolor="white"),
        ]
        _legend(figure, handles)
        return png(figure)


def _curve(axes: Axes, style: MethodStyle, curve: pd.DataFrame) -> None:
    x = curve["env_steps"] / 1e6
    for name, line in (("return", "-"), ("return_after", "-"), ("return_before", ":")):
        if name in curve:
            drawn = smooth(curve[name]).where(curve[name].notna())  # not beyond what was measured
            axes.plot(x, drawn, line, color=style.color)
    measured = curve["validation_return"].notna()
    look: dict[str, Any] = {"color": style.color, "marker": "o", "markerfacecolor": "white", "markersize": 5}
    axes.plot(x[measured], curve["validation_return"][measured], linestyle="", **look)


def speed_against_time(speeds: Sequence[Speeds]) -> bytes:
    """Draw the speed of single rollouts against time: a row for each task, a column for each of its goals."""
    with figure_style():
        columns = max(len(one.goals) for one in speeds)
        size = (4.6 * columns, 2.4 * len(speeds))
        figure, grid = plt.subplots(len(speeds), columns, figsize=size, sharey="row", squeeze=False)
        for row, one in zip(grid, speeds, strict=True):
            for index, axes in enumerate(row):
                if index < len(one.goals):
                    _speeds(axes, one, index)
                else:
                    axes.set_axis_off()
            row[0].set_ylabel("speed (m/s)")
        for axes in grid[-1]:
            axes.set_xlabel("time (s)")
        keys = sorted({key for one in speeds for key in one.values}, key=_drawn_after)
        handles = [_line(_policy(*key), METHOD_STYLES[key[0]].color, _stroke(*key)) for key in keys]
        wanted = (
            [_line("wanted speed", "black", "--")] if any(one.task not in DIRECTION_TASKS for one in speeds) else []
        )
        fell = any(bool(values.isnan().any()) for one in speeds for values in one.values.values())
        _legend(figure, [*handles, *wanted, *([_line("ended early", "black", "", "X")] if fell else [])])
        return png(figure)


def _speeds(axes: Axes, one: Speeds, index: int) -> None:
    goal = float(one.goals[index, 0])
    if one.task in DIRECTION_TASKS:
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set_title(f"{TASK_NAMES[one.task]}: {'forwards (above 0)' if goal > 0 else 'backwards (below 0)'}")
    else:
        axes.axhline(goal, color="black", linestyle="--", linewidth=1.2)
        axes.set_title(f"{TASK_NAMES[one.task]}: {goal:.2f} m/s")
    for method, step in sorted(one.values, key=_drawn_after):
        color = METHOD_STYLES[method].color
        speed = one.values[method, step][index].double()
        time = one.seconds * np.arange(len(speed))
        axes.plot(time, speed, _stroke(method, step), color=color, linewidth=1.4)
        last = _last_finite(speed)
        if last < len(speed) - 1:
            axes.plot(time[last], speed[last], "X", color=color, mec="black", markersize=8, zorder=3)


def _drawn_after(key: tuple[str, int]) -> tuple[bool, str, int]:
    """Order policies such that MAML's lines lie above those of others, and later steps above earlier ones."""
    method, step = key
    return method == "maml", method, step


def _last_finite(speed: Tensor) -> int:
    """Return the index of the last speed before a rollout ended, 0 if there is none."""
    finite = torch.nonzero(speed.isfinite())
    return int(finite[-1]) if len(finite) else 0


def _stroke(method: str, step: int) -> Stroke:
    return ":" if method == "maml" and step == 0 else "-"


def _policy(method: str, step: int) -> str:
    label = METHOD_STYLES[method].label
    if step == 0:
        return f"{label}, before" if method == "maml" else label
    return f"{label}, after {counted([step], 'step')}"


def _panels(tasks: Sequence[str], height: float) -> tuple[Figure, list[Axes]]:
    """Return a figure with a titled panel a task, at most two a row."""
    columns = min(len(tasks), 2)
    rows = -(-len(tasks) // columns)
    figure, grid = plt.subplots(rows, columns, figsize=(5 * columns, height * rows), squeeze=False)
    panels = list(grid.flat)
    for axes, task in zip(panels, tasks, strict=False):
        axes.set_title(TASK_NAMES[task])
    for axes in panels[len(tasks) :]:
        axes.set_axis_off()
    for row in grid:
        row[0].set_ylabel("return")
    return figure, panels[: len(tasks)]


def _method_handle(method: str) -> Line2D:
    style = METHOD_STYLES[method]
    return _line(style.label, style.color, "-", "" if method == "oracle" else style.marker)


def _line(label: str, color: str, stroke: Stroke, marker: str = "", **look: Any) -> Line2D:
    return Line2D([], [], color=color, linestyle=stroke, marker=marker, label=label, **look)


def _legend(figure: Figure, handles: Sequence[Line2D]) -> None:
    fitting = max(int(figure.get_figwidth() / _ENTRY_INCHES), 1)
    rows = -(-len(handles) // fitting)
    figure.legend(handles=handles, loc="outside lower center", ncols=-(-len(handles) // rows))
