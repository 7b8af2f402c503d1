"""Letters as pictures: outlines of the DejaVu faces that Matplotlib ships, turned into grey images."""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.ft2font import FT2Font, LoadFlags
from matplotlib.path import Path as Outline
from matplotlib.transforms import Affine2D

if TYPE_CHECKING:
    from matplotlib.ft2font import GlyphIndexType

FACES = (
    "DejaVuSans",
    "DejaVuSans-Oblique",
    "DejaVuSans-Bold",
    "DejaVuSans-BoldOblique",
    "DejaVuSansMono",
    "DejaVuSansMono-Oblique",
    "DejaVuSansMono-Bold",
    "DejaVuSansMono-BoldOblique",
    "DejaVuSerif",
    "DejaVuSerif-Italic",
    "DejaVuSerif-Bold",
    "DejaVuSerif-BoldItalic",
)
"""File names of the text faces; a face's place here is its number as an example."""

SIZE = 28
"""Height and width of a picture in pixels."""
BOX = 18
"""The longer side of a letter's outline before jitter, in pixels."""
_MISSING = 0  # the glyph that TrueType fonts show for a letter they lack


class Jitter(NamedTuple):
    """How far a drawing may depart from the plain letter; each part is uniform on [-value, value].

    docs/glyphs.md says how hard the defaults make the dataset.

    Args:
        rotation: degrees.
        scale: relative change of size.
        shear: pixels to the right for each pixel upwards.
        translation: pixels, to the right and upwards independently.
    """

    rotation: float = 10.0
    scale: float = 0.1
    shear: float = 0.1
    translation: float = 1.5

    def transform(self, uniform: tuple[float, float, float, float, float]) -> Affine2D:
        """Return the map of the plane about the origin for five numbers in [-1, 1].

        x -> R(rotation) S(shear) (1 + scale) x + translation, y upwards.
        """
        turn, size, slant, right, up = uniform
        return (
            Affine2D(np.array([[1, slant * self.shear, 0], [0, 1, 0], [0, 0, 1]]))
            .scale(1 + size * self.scale)
            .rotate_deg(turn * self.rotation)
            .translate(right * self.translation, up * self.translation)
        )


DEFAULT_JITTER = Jitter()


@cache
def _face(name: str) -> FT2Font:
    return FT2Font(str(Path(mpl.get_data_path(), "fonts", "ttf", f"{name}.ttf")))


@cache
def characters(face: str) -> dict[int, "GlyphIndexType"]:
    """Return the glyph number of every code point that ``face`` has, those shown as the missing glyph left out."""
    return {code: glyph for code, glyph in _face(face).get_charmap().items() if glyph != _MISSING}


@cache
def outline(face: str, code: int) -> Outline | None:
    """Return the letter's outline, its bounding box centred on the origin with a longer side of ``BOX``.

    The box is that of the curves' control points. None if the face lacks the letter or its outline is empty.
    """
    glyph = characters(face).get(code)
    if glyph is None:
        return None
    font = _face(face)
    font.load_glyph(glyph, flags=LoadFlags.NO_SCALE | LoadFlags.NO_HINTING)
    vertices, codes = font.get_path()
    drawn = vertices[codes != Outline.CLOSEPOLY]
    if len(drawn) == 0:
        return None
    low, high = drawn.min(axis=0), drawn.max(axis=0)
    return Outline((vertices - (low + high) / 2) * (BOX / (high - low).max()), codes)


def rasterise(shape: Outline, transform: Affine2D | None = None) -> np.ndarray:
    """Return the filled outline as uint8 ``[SIZE, SIZE]``, 255 where a pixel is covered whole.

    The origin is at the picture's middle. Agg computes each pixel's covered area (nonzero winding).
    """
    renderer = RendererAgg(SIZE, SIZE, dpi=72)
    context = renderer.new_gc()
    context.set_snap(False)
    context.set_linewidth(0)
    placed = (transform or Affine2D()) + Affine2D().translate(SIZE / 2, SIZE / 2)
    renderer.draw_path(context, shape, placed, (0.0, 0.0, 0.0))
    return np.asarray(renderer.buffer_rgba())[..., 3].copy()
