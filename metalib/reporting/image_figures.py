"""Figures of few-shot classification and of the LSTM rule's gates, each a function from stored data to PNG bytes."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from torch import Tensor

from metalib.losses import Episode
from metalib.reporting.classification import METHODS
from metalib.reporting.style import METHOD_STYLES, figure_style, png

RIGHT, WRONG = "#009E73", "#D55E00"


def accuracy_against_steps(table: pd.DataFrame, way: int) -> bytes:
    """Draw accuracy against gradient steps, a panel for each shot.

    Args:
        table: of :func:`metalib.reporting.classification.accuracy_table`.
        way: classes an episode.
    """
    rows = table[table["way"] == way]
    shots = sorted(rows["shot"].unique())
    with figure_style():
        figure, grid = plt.subplots(1, len(shots), figsize=(4.6 * len(shots), 3.6), sharey=True, squeeze=False)
        for axes, shot in zip(grid[0], shots, strict=True):
            for method in METHODS:
                _draw_method(axes, method, rows[(rows["method"] == method) & (rows["shot"] == shot)])
            axes.axhline(1 / way, color="black", linewidth=1, linestyle=":", label="chance")
            axes.set(title=f"{way}-way {shot}-shot", xlabel="gradient steps")
        grid[0][0].set(ylabel="accuracy", ylim=(0, 1))
        handles, labels = grid[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4)
        return png(figure)


def _draw_method(axes: Axes, method: str, rows: pd.DataFrame) -> None:
    if rows.empty:
        return
    style = METHOD_STYLES[method]
    if len(rows) == 1:  # takes no gradient steps
        row = rows.iloc[0]
        axes.axhline(row["accuracy_mean"], color=style.color, linestyle="--", label=style.label)
        axes.axhspan(row["ci95_low"], row["ci95_high"], color=style.color, alpha=0.2, linewidth=0)
        return
    x = rows["gradient_step"]
    axes.plot(x, rows["accuracy_mean"], color=style.color, marker=style.marker, markersize=4, label=style.label)
    axes.fill_between(x, rows["ci95_low"], rows["ci95_high"], color=style.color, alpha=0.2, linewidth=0)


def episode(shown: Episode, predicted: Mapping[str, tuple[Tensor, int]], n_queries: int) -> bytes:
    """Draw one episode: a support image of each class, some query images, and what each method takes them for.

    Args:
        shown: images and labels of one episode, x ``[n, channels, height, width]``.
        predicted: for each method the classes ``[steps + 1, n_query]`` and the step at which it is judged.
        n_queries: query images of each class to draw.
    """
    labels, query = shown.support.y.tolist(), shown.query.y.tolist()
    way = max(labels) + 1
    picked = [[i for i, label in enumerate(query) if label == k][:n_queries] for k in range(way)]
    order = [i for row in picked for i in row]
    lines = [(m, step) for m, (_, last) in predicted.items() for step in dict.fromkeys((0, last))]
    with figure_style():
        figure, grid = plt.subplots(
            2 + len(lines),
            len(order),
            figsize=(0.5 * len(order) + 2.2, 0.52 * (2 + len(lines))),
            squeeze=False,
        )
        support = [labels.index(k) for k in range(way)]
        for column, index in enumerate(order):
            first = index == picked[query[index]][0]
            _image(grid[0][column], shown.support.x[support[query[index]]] if first else None)
            _image(grid[1][column], shown.query.x[index])
            for row, (method, step) in enumerate(lines, start=2):
                guess = int(predicted[method][0][step, index])
                _image(grid[row][column], shown.support.x[support[guess]])
                _frame(grid[row][column], RIGHT if guess == query[index] else WRONG)
        names = ["support, one a class", "query", *(_line_name(predicted, m, s) for m, s in lines)]
        for row, name in enumerate(names):
            grid[row][0].text(-0.25, 0.5, name, transform=grid[row][0].transAxes, ha="right", va="center", fontsize=8)
        return png(figure)


def _line_name(predicted: Mapping[str, tuple[Tensor, int]], method: str, step: int) -> str:
    label = METHOD_STYLES[method].label
    if predicted[method][1] == 0:
        return label
    return f"{label}, after {step} step{'s' * (step != 1)}" if step else f"{label}, before"


def _image(axes: Axes, image: Tensor | None) -> None:
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    if image is not None:
        pixels = image.movedim(0, -1).numpy()
        if pixels.shape[-1] == 1:
            axes.imshow(255 - pixels[..., 0], cmap="gray", vmin=0, vmax=255)
        else:
            axes.imshow(pixels)
    axes.grid(visible=False)


def _frame(axes: Axes, color: str) -> None:
    axes.spines[:].set(visible=True, color=color, linewidth=2)


def gates(quantiles: Mapping[str, Mapping[str, Tensor]], levels: Sequence[float]) -> bytes:
    """Draw the LSTM rule's gates against inner steps: median, and bands between symmetric quantiles.

    Args:
        quantiles: for each trained learner, "forget" and "input" ``[steps, quantile]``.
        levels: the quantiles, in 0..1, symmetric about 0.5.
    """
    with figure_style():
        figure, grid = plt.subplots(
            2, len(quantiles), figsize=(3.2 * len(quantiles), 4.8), sharex="col", sharey="row", squeeze=False
        )
        for column, (name, by_gate) in enumerate(quantiles.items()):
            for row, gate in enumerate(("forget", "input")):
                axes, values = grid[row][column], by_gate[gate]
                steps = range(1, len(values) + 1)
                for low in range(len(levels) // 2):
                    high = len(levels) - 1 - low
                    axes.fill_between(steps, values[:, low], values[:, high], color="#CC79A7", alpha=0.25, linewidth=0)
                axes.plot(steps, values[:, len(levels) // 2], color="#882255", marker="D", markersize=3)
            grid[0][column].set_title(name)
            grid[1][column].set(xlabel="inner step", yscale="log")
        grid[0][0].set_ylabel("forget gate f\n(1: keep theta)")
        grid[1][0].set_ylabel("input gate i\n(rate of the gradient)")
        return png(figure)
