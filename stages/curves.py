"""Training curves as TSV, which DVC plots."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from metalib.meta_training.supervised import Chunk
from metalib.storage import write_text


class CurveRecorder:
    """Collects one point a chunk: the loss averaged over the chunk's steps and seeds, at its last step."""

    def __init__(self) -> None:
        self.points: dict[int, float] = {}

    def record(self, chunk: Chunk) -> None:
        """Add the chunk's point."""
        self.points[chunk.steps] = chunk.losses.double().mean().item()


def write_curves(path: Path, curves: Mapping[str, Mapping[int, float]]) -> None:
    """Write columns ``step`` and one a curve; all curves have the same steps."""
    table = pd.DataFrame(curves).rename_axis("step").reset_index()
    write_text(path, table.to_csv(sep="\t", index=False, float_format="%.6g"))
