"""Draw the contact sheet of docs/glyphs.md, and print its table of counts: python -m tools.glyph_sheet PICTURE."""

import io
import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from metalib.storage import write_bytes
from metalib.tasks.glyphs import counts_table, draw_glyphs
from metalib.tasks.image_classes import ImageClasses

_COLUMNS = 36


def montage(images: Tensor, columns: int) -> np.ndarray:
    """Return uint8 pictures ``[n, size, size]`` side by side in rows of ``columns``, dark on white, with thin rules."""
    framed = torch.nn.functional.pad(255 - images, (1, 1, 1, 1), value=225)
    missing = -len(framed) % columns
    filled = torch.cat([framed, framed.new_full((missing, *framed.shape[1:]), 255)])
    rows = filled.reshape(-1, columns, *framed.shape[1:]).permute(0, 2, 1, 3)
    return rows.reshape(rows.shape[0] * rows.shape[1], -1).numpy()


def sheet(splits: dict[str, ImageClasses]) -> Figure:
    """Return a figure of every letter in one face each, by split, and of twelve letters in all faces."""
    panels = {}
    for name, classes in splits.items():
        n, faces = classes.available.shape
        every = classes.images[torch.arange(n), torch.arange(n) % faces, 0]
        panels[f"{name}: {n} letters, each in one of the faces"] = montage(every, _COLUMNS)
    some = splits["test"].images[::7, :, 0][:12]
    panels["twelve test letters, each in the 12 faces"] = montage(some.flatten(0, 1), _COLUMNS)
    heights = [panel.shape[0] for panel in panels.values()]
    figure = Figure(figsize=(9, sum(heights) / 120 + 1), layout="constrained", dpi=120)
    for axes, (title, panel) in zip(
        figure.subplots(len(panels), 1, height_ratios=heights), panels.items(), strict=True
    ):
        axes.imshow(panel, cmap="gray", vmin=0, vmax=255, interpolation="antialiased")
        axes.set_title(title, fontsize=9, loc="left")
        axes.set_axis_off()
    return figure


def to_png(figure: Figure) -> bytes:
    """Return the figure as a PNG of 16 greys, a third of the size of one in full colour."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("L").quantize(16)
    content = io.BytesIO()
    picture.save(content, format="png", optimize=True)
    return content.getvalue()


def main() -> None:
    """Write the picture to the path given, and print the table."""
    if len(sys.argv) != 2:
        raise SystemExit("give the path of the picture: python -m tools.glyph_sheet docs/figures/glyphs.png")
    path = Path(sys.argv[1])
    write_bytes(path, to_png(sheet(draw_glyphs(0))))
    print(counts_table())


if __name__ == "__main__":
    main()
