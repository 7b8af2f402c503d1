"""One look for all figures: colours that colour-blind readers can tell apart, and a marker for each method."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image


class MethodStyle(NamedTuple):
    """How a method is named and drawn."""

    label: str
    color: str
    marker: str


# Colours of Okabe and Ito (2008), "Color universal design".
METHOD_STYLES = {
    "maml": MethodStyle("MAML", "#0072B2", "o"),
    "lstm": MethodStyle("LSTM meta-learner", "#CC79A7", "D"),
    "pretrained": MethodStyle("pretrained", "#D55E00", "s"),
    "scratch": MethodStyle("scratch", "#777777", "^"),
    "random": MethodStyle("random", "#777777", "^"),
    "oracle": MethodStyle("oracle", "#009E73", "x"),
    "prototypical": MethodStyle("prototypical network", "#009E73", "x"),
    "nearest_neighbour": MethodStyle("nearest neighbour (pixels)", "#E69F00", "v"),
}
SHOT_COLORS = ("#56B4E9", "#0072B2", "#000000", "#E69F00", "#CC79A7")

_SETTINGS: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E6E6E6",
    "legend.frameon": False,
    "savefig.dpi": 110,
    "figure.constrained_layout.use": True,
}


@contextmanager
def figure_style() -> Iterator[None]:
    """Draw the body's figures in the house style, whatever the user's own matplotlib settings."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.use("Agg")
        mpl.rcParams.update(_SETTINGS)
        yield


def smooth(values: pd.Series) -> pd.Series:
    """Average a fiftieth of the curve around each point, so that lines can be told apart."""
    return values.rolling(max(len(values) // 50, 1), min_periods=1, center=True).mean()


def png(figure: Figure) -> bytes:
    """Return the figure as PNG and close it; the same figure gives the same bytes.

    Colours are reduced to the 256 that fit best: a third of the bytes, for the page holds all pictures.
    """
    drawn, reduced = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", metadata={"Software": None})
    plt.close(figure)
    with Image.open(drawn) as image:
        palette = image.convert("RGB").quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    palette.save(reduced, "PNG", optimize=True)
    return reduced.getvalue()
