"""Glyphs: letters of many alphabets in twelve type faces, a few-shot dataset that needs no download.

docs/glyphs.md gives the rule, the counts and a picture.
"""

import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from metalib.randomness import generator
from metalib.tasks.image_classes import ImageClasses
from metalib.tasks.look_alikes import distances, distinct_classes
from metalib.tasks.typefaces import DEFAULT_JITTER, FACES, SIZE, Jitter, characters, outline, rasterise

SPLITS = {"train": ("LATIN", "CYRILLIC"), "validation": ("GREEK",), "test": ("ARMENIAN", "GEORGIAN")}
"""Scripts of each split, as the first word of the letters' Unicode names; fixed, so that test alphabets are unseen."""
SCRIPTS = tuple(script for scripts in SPLITS.values() for script in scripts)

LOOK_ALIKE = 0.09
"""Letters nearer than this look the same; chosen by looking at pairs on either side (docs/glyphs.md)."""

_FEWEST_FACES = 11
_VARIANT_WORDS = ("WITH", "LIGATURE", "DIGRAPH", "SMALL CAPITAL", "DOTTED", "DIAERESIZED")


class Letters(NamedTuple):
    """The letters of the dataset.

    ``codes``: code points by split. ``turns``: by split, bool ``[letters, 4]``, which of them turned by 0, 90, 180
    and 270 degrees are classes of their own. ``counts``: letters left after each step, by step and script.
    """

    codes: dict[str, tuple[int, ...]]
    turns: dict[str, Tensor]
    counts: dict[str, dict[str, int]]


def draw_glyphs(seed: int, jitter: Jitter = DEFAULT_JITTER) -> dict[str, ImageClasses]:
    """Draw every letter once in every face; the result has the keys "train", "validation" and "test".

    Examples are faces (``shared_examples``), in the order of ``FACES``. The jitter of a letter in a face follows
    from the seed, the letter and the face alone.

    Args:
        seed: of the jitter.
        jitter: its strength.
    """
    letters = choose_letters()
    drawn = {}
    for split, codes in letters.codes.items():
        images = torch.stack([_jittered(code, seed, jitter) for code in codes])
        names = tuple(map(unicodedata.name, map(chr, codes)))
        drawn[split] = ImageClasses(images[:, :, None], _available(codes), names, True, letters.turns[split])
    return drawn


def glyph_counts() -> dict[str, dict[str, int]]:
    """Return how many letters are left after each step, by step and script; "other" is any further script.

    The last step, "turned copies", counts the classes that :meth:`ImageClasses.with_rotations` adds.
    """
    return choose_letters().counts


def counts_table() -> str:
    """Return the counts as a Markdown table."""
    counts = glyph_counts()
    columns = [*SCRIPTS, "other"]
    lines = ["| step | " + " | ".join(columns).title() + " | sum |", "|---" * (len(columns) + 2) + "|"]
    for step, of in counts.items():
        numbers = [of.get(script, 0) for script in columns]
        lines.append(f"| {step} | " + " | ".join(map(str, [*numbers, sum(numbers)])) + " |")
    return "\n".join(lines)


@cache
def choose_letters() -> Letters:
    """Return the letters that are kept, by the rule of docs/glyphs.md."""
    codes = found_letters()
    counts = {f"found in {_FEWEST_FACES} faces or more": _by_script(codes)}
    for step, keeps in _NAME_RULES.items():
        codes = [code for code in codes if keeps(code)]
        counts[step] = _by_script(codes)
    distance = distances(torch.stack([plain_images(code) for code in codes]))
    groups = [
        [row for script in scripts for row, code in enumerate(codes) if _script(code) == script]
        for scripts in SPLITS.values()
    ]
    taken = distinct_classes(distance, groups, LOOK_ALIKE)
    kept = {split: [row for row in group if taken[row, 0]] for split, group in zip(SPLITS, groups, strict=True)}
    rows = [row for of_split in kept.values() for row in of_split]
    counts["unlike every letter and turned copy before"] = _by_script([codes[row] for row in rows])
    counts["turned copies"] = _by_script([codes[row] for row in rows for _ in range(int(taken[row, 1:].sum()))])
    return Letters(
        codes={split: tuple(codes[row] for row in of_split) for split, of_split in kept.items()},
        turns={split: taken[of_split] for split, of_split in kept.items()},
        counts=counts,
    )


def found_letters() -> list[int]:
    """Return the code points of Unicode's letters (category L) with a picture in 11 of the 12 faces or more."""
    faces = Counter(code for face in FACES for code in characters(face) if unicodedata.category(chr(code))[0] == "L")
    enough = sorted(code for code, count in faces.items() if count >= _FEWEST_FACES)
    return [code for code in enough if sum(outline(face, code) is not None for face in FACES) >= _FEWEST_FACES]


def _is_undecomposed(code: int) -> bool:
    """No canonical or compatibility decomposition: no base with marks, no presentation form, no superscript."""
    return unicodedata.normalize("NFKD", chr(code)) == chr(code)


def _is_no_modifier(code: int) -> bool:
    return unicodedata.category(chr(code)) != "Lm"


def _is_no_variant_by_name(code: int) -> bool:
    return not any(words in unicodedata.name(chr(code)) for words in _VARIANT_WORDS)


_NAME_RULES: dict[str, Callable[[int], bool]] = {
    "without decomposition": _is_undecomposed,
    "no modifier letter": _is_no_modifier,
    "no variant by its name": _is_no_variant_by_name,
}


def _script(code: int) -> str:
    return unicodedata.name(chr(code)).split()[0]


def _by_script(codes: Sequence[int]) -> dict[str, int]:
    counts = Counter(script if (script := _script(code)) in SCRIPTS else "other" for code in codes)
    return {script: counts[script] for script in (*SCRIPTS, "other")}


def plain_images(code: int) -> Tensor:
    """Return the letter without jitter, uint8 ``[faces, SIZE, SIZE]``; 0 where a face lacks it."""
    return _jittered(code, 0, Jitter(0, 0, 0, 0))


def _jittered(code: int, seed: int, jitter: Jitter) -> Tensor:
    """Return the letter in every face, uint8 ``[faces, SIZE, SIZE]``; 0 where a face lacks it."""
    uniform = 2 * torch.rand(len(FACES), 5, generator=generator(seed, "glyph jitter", code)) - 1
    images = np.zeros((len(FACES), SIZE, SIZE), dtype=np.uint8)
    for row, face in enumerate(FACES):
        shape = outline(face, code)
        if shape is not None:
            images[row] = rasterise(shape, jitter.transform(tuple(uniform[row].tolist())))
    return torch.from_numpy(images)


def _available(codes: Sequence[int]) -> Tensor:
    return torch.tensor([[outline(face, code) is not None for face in FACES] for code in codes])
