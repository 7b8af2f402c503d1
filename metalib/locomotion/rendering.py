"""Headless frames of bodies, side by side with text, as GIF or WebP."""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from metalib.errors import MetalibError
from metalib.locomotion.bodies import Body
from metalib.locomotion.physics import RENDERER, mujoco
from metalib.storage import write_bytes

Frame = NDArray[np.uint8]
"""``[height, width, 3]``."""

_TEXT_SIZE = 13
_LINE = 17
_MARGIN = 6
_QUALITIES = (70, 50, 35, 20, 10, 5, 1)  # of WebP: below 10 the floor blurs, bodies can still be seen


class RenderingError(MetalibError):
    """Nothing here can draw, or a film cannot be written."""


class BodyRenderer:
    """Draws one body, followed by its ``track`` camera. Close it after use.

    Args:
        body: what to draw.
        width: of a frame in pixels.
        height: of a frame in pixels.

    Raises:
        RenderingError: there is no display and neither EGL nor OSMesa, or they do not work.
    """

    def __init__(self, body: Body, width: int = 320, height: int = 240) -> None:
        if not RENDERER:
            raise RenderingError(
                "nothing can draw here: there is no display, and neither EGL nor OSMesa is installed; "
                "install libegl1 or libosmesa6 (and set MUJOCO_GL before the start if both are to be tried)"
            )
        self._data = mujoco.MjData(body.model)
        self._model = body.model
        try:
            self._renderer = mujoco.Renderer(body.model, height, width)
        except (mujoco.FatalError, RuntimeError, ImportError, AttributeError, ValueError) as error:
            raise RenderingError(
                f"MuJoCo cannot draw with MUJOCO_GL={RENDERER} ({' '.join(str(error).split())}); try egl or osmesa"
            ) from error

    def frame(self, positions: NDArray[np.float64]) -> Frame:
        """Return the picture of joint positions ``[nq]``."""
        self._data.qpos[:] = positions
        mujoco.mj_forward(self._model, self._data)
        self._renderer.update_scene(self._data, camera="track")
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            self._renderer.scene.flags[flag] = False  # slow in software, and films of them are large
        picture: Frame = self._renderer.render()
        return picture

    def close(self) -> None:
        """Give the graphics memory back; more than once is allowed."""
        self._renderer.close()


def point_frame(path: NDArray[np.float64], goal: NDArray[np.float64], size: int = 240) -> Frame:
    """Return a picture of a point's ``path`` ``[time, 2]`` and its ``goal`` ``[2]`` on the square around the origin."""
    image = Image.new("RGB", (size, size), "white")
    pen = ImageDraw.Draw(image)

    def pixel(position: NDArray[np.float64]) -> tuple[float, float]:
        x, y = 0.5 + np.clip(np.nan_to_num(position), -1, 1) / 1.5
        return float(x * size), float((1 - y) * size)

    pen.rectangle([pixel(np.array([-0.5, 0.5])), pixel(np.array([0.5, -0.5]))], outline="#BBBBBB")
    if len(path) > 1:
        pen.line([pixel(position) for position in path], fill="#56B4E9", width=2)
    for position, colour in ((goal, "#D55E00"), (path[-1], "#0072B2")):
        pen.circle(pixel(position), size / 48, fill=colour)
    return np.asarray(image)


def side_by_side(frames: Sequence[Frame], captions: Sequence[str], columns: int | None = None) -> Image.Image:
    """Return the frames beside each other, each below its caption (one or more lines); ``columns`` of them a row."""
    columns = columns or len(frames)
    top = _LINE * max(caption.count("\n") + 1 for caption in captions) + _MARGIN
    height, width = frames[0].shape[:2]
    rows = -(-len(frames) // columns)
    image = Image.new("RGB", (width * min(columns, len(frames)), (height + top) * rows), "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(_TEXT_SIZE)
    for index, (frame, caption) in enumerate(zip(frames, captions, strict=True)):
        left, upper = index % columns * width, index // columns * (height + top)
        image.paste(Image.fromarray(frame), (left, upper + top))
        pen.multiline_text((left + _MARGIN, upper + 2), caption, fill="black", font=font, spacing=3)
    return image


def save_animation(
    path: Path, images: Sequence[Image.Image], frames_per_second: float, largest: int | None = None
) -> None:
    """Write images as an endless film; ``.gif`` or ``.webp`` says which kind.

    Args:
        path: the file.
        images: all of one size.
        frames_per_second: of the film.
        largest: bytes that the film may have; a WebP then gets the best quality that fits.

    Raises:
        RenderingError: there is no image, the name ends in neither, or no quality is small enough.
        StorageError: the file cannot be written.
    """
    if path.suffix not in (".gif", ".webp"):
        raise RenderingError(f"cannot write {path}: a film's name must end in .gif or .webp")
    if not images:
        raise RenderingError(f"cannot write {path}: there is no image")
    encoded = _gif(images, frames_per_second) if path.suffix == ".gif" else _webp(images, frames_per_second)
    for content in encoded:
        if largest is None or len(content) <= largest:
            write_bytes(path, content)
            return
    raise RenderingError(
        f"cannot write {path}: it takes {len(content):,} bytes and {largest:,} are allowed; "
        "make it shorter, its pictures smaller, or the time between them longer"
    )


def _gif(images: Sequence[Image.Image], frames_per_second: float) -> Iterator[bytes]:
    palette = images[0].quantize(64, dither=Image.Dither.NONE)
    reduced = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    yield _encoded(reduced, frames_per_second, "GIF", optimize=False)


def _webp(images: Sequence[Image.Image], frames_per_second: float) -> Iterator[bytes]:
    """Give the film in ever lower quality."""
    for quality in _QUALITIES:
        yield _encoded(images, frames_per_second, "WEBP", quality=quality, method=4)


def _encoded(images: Sequence[Image.Image], frames_per_second: float, kind: str, **options: Any) -> bytes:
    content = io.BytesIO()
    duration = round(1000 / frames_per_second)
    images[0].save(content, kind, save_all=True, append_images=list(images[1:]), duration=duration, loop=0, **options)
    return content.getvalue()
