"""The figure of the benchmark page."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
from matplotlib import ticker
from matplotlib.axes import Axes

from metalib.reporting.style import MethodStyle, figure_style, png

AXIS_LABELS = {
    "tasks": "tasks a meta-step",
    "shots": "support = query examples K",
    "inner_steps": "inner steps",
    "width": "hidden width",
}
# Colours of Okabe and Ito (2008), as in the report.
STYLES = {
    "metalib_fused": MethodStyle("kernel", "#009E73", "D"),
    "metalib_compiled": MethodStyle("compiled", "#0072B2", "o"),
    "metalib_eager": MethodStyle("eager", "#D55E00", "s"),
}


def growth_figure(rows: Sequence[dict[str, Any]], labels: dict[str, str]) -> bytes:
    """Draw time (above) and peak memory (below) against each size, as PNG.

    Args:
        rows: what :func:`benchmarks.growth.grow` returned.
        labels: the programs' names.
    """
    axes_names = [name for name in AXIS_LABELS if any(row["axis"] == name for row in rows)]
    with figure_style():
        figure, grid = plt.subplots(
            2, len(axes_names), figsize=(3.1 * len(axes_names), 5.2), sharex="col", sharey="row", squeeze=False
        )
        for (above, below), name in zip(grid.T, axes_names, strict=True):
            points = [row for row in rows if row["axis"] == name]
            _draw(above, points, "ms_median", labels)
            sizes = [row["value"] for row in points]
            floor = [row["floor_ms"] for row in points]
            above.plot(sizes, floor, color="#777777", linestyle="--", label="arithmetic floor")
            _draw(below, points, "peak_resident_mib", labels)
            below.set(xlabel=AXIS_LABELS[name], xscale="log")
            below.set_xticks(sizes, [str(size) for size in sizes])
            below.minorticks_off()
        _finish(grid[0][0], "ms a meta-step", (1.0,))
        _finish(grid[1][0], "peak memory, MiB", (1.0, 2.0, 5.0))
        handles, names = grid[0][0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=len(names))
        return png(figure)


def _draw(axes: Axes, points: Sequence[dict[str, Any]], key: str, labels: dict[str, str]) -> None:
    for name, style in STYLES.items():
        values = [(row["value"], row["programs"][name][key]) for row in points if name in row["programs"]]
        if values:
            x, y = zip(*values, strict=True)
            axes.plot(x, y, color=style.color, marker=style.marker, markersize=4, label=labels[name])


def _finish(axes: Axes, label: str, steps: tuple[float, ...]) -> None:
    axes.set(ylabel=label, yscale="log")
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=steps))
    axes.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    axes.yaxis.set_minor_formatter(ticker.NullFormatter())
