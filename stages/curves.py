"""Training curves as TSV, which DVC plots."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from metalib.storage import write_text


def write_curves(path: Path, curves: Mapping[str, Mapping[int, float]]) -> None:
    """Write columns ``step`` and one a curve; all curves have the same steps."""
    table = pd.DataFrame(curves).rename_axis("step").reset_index()
    write_text(path, table.to_csv(sep="\t", index=False, float_format="%.6g"))


def mean_curve(curves: Sequence[Mapping[int, float]]) -> dict[int, float]:
    """Return the mean of curves with the same steps."""
    return {step: math.fsum(curve[step] for curve in curves) / len(curves) for step in curves[0]}
