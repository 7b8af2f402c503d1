"""The embedded dataset against independent computations of its pictures, its choice of letters and its table."""

import hashlib
import itertools
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.path import Path as Outline

from metalib.randomness import generator
from metalib.tasks import glyphs
from metalib.tasks.look_alikes import distances, distinct_classes
from metalib.tasks.typefaces import BOX, DEFAULT_JITTER, FACES, SIZE, Jitter, outline, rasterise

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module", name="letters")
def _letters():
    return glyphs.choose_letters()


@pytest.fixture(scope="module", name="splits")
def _splits():
    return glyphs.draw_glyphs(0)


def shape_of(face, letter):
    shape = outline(face, ord(letter))
    assert shape is not None
    return shape


def enclosed_area(shape):
    """Signed area by Green's theorem over the outline's curves, cut into short chords."""
    area = 0.0
    for polygon in shape.to_polygons(closed_only=True):
        x, y = polygon[:, 0], polygon[:, 1]
        area += float(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1])) / 2
    return area


@pytest.mark.parametrize("letter", "Oßg8Ж")
@pytest.mark.parametrize("face", FACES[::3])
def test_ink_is_the_outlines_area(letter, face):
    shape = shape_of(face, letter)
    ink = rasterise(shape).sum() / 255
    assert ink == pytest.approx(abs(enclosed_area(shape)), rel=0.01)


def test_a_pixel_is_as_dark_as_it_is_covered():
    square = Outline(np.array([[-1, -1], [1.25, -1], [1.25, 1.5], [-1, 1.5], [-1, -1]]), closed=True)
    middle = SIZE // 2
    drawn = rasterise(square).astype(float) / 255
    expected = np.zeros((SIZE, SIZE))
    expected[middle - 1 : middle + 1, middle - 1 : middle + 1] = 1
    expected[middle - 2, middle - 1 : middle + 1] = 0.5  # upwards is towards row 0
    expected[middle - 1 : middle + 1, middle + 1] = 0.25
    expected[middle - 2, middle + 1] = 0.125
    np.testing.assert_allclose(drawn, expected, atol=1 / 100)


def test_overlapping_contours_are_filled():
    ring = np.array([[-3, -3], [3, -3], [3, 3], [-3, 3], [-3, -3]])
    twice = Outline(np.concatenate([ring, ring]), [1, 2, 2, 2, 79] * 2)
    assert (rasterise(twice) == rasterise(Outline(ring, closed=True))).all()


@pytest.mark.parametrize("letter", "ALgՖ")
def test_a_plain_letter_fills_its_box(letter):
    for face in FACES:
        rows, columns = np.nonzero(rasterise(shape_of(face, letter)))
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert BOX - 1 <= max(height, width) <= BOX + 1
        assert abs(rows.min() + rows.max() - (SIZE - 1)) <= 1
        assert abs(columns.min() + columns.max() - (SIZE - 1)) <= 1


def test_a_letter_that_a_face_lacks_has_no_outline():
    assert outline("DejaVuSans", 0x4E00) is None  # no Chinese in DejaVu
    assert outline("DejaVuSans", ord(" ")) is None  # nothing to see


@pytest.mark.parametrize(
    ("uniform", "point", "expected"),
    [
        ((1, 0, 0, 0, 0), (1, 0), (0, 1)),
        ((0, 1, 0, 0, 0), (2, 4), (3, 6)),
        ((0, 0, -1, 0, 0), (1, 2), (0.2, 2)),
        ((0, 0, 0, 1, -1), (5, 5), (8, 2)),
        ((1, 1, 1, 1, 0), (1, 2), (0, 2.7)),  # sheared (1.8, 2), scaled (2.7, 3), turned (-3, 2.7), moved (0, 2.7)
    ],
)
def test_jitter_by_hand(uniform, point, expected):
    transform = Jitter(rotation=90, scale=0.5, shear=0.4, translation=3).transform(uniform)
    np.testing.assert_allclose(transform.transform(point), expected, atol=1e-12)


@pytest.mark.parametrize(("split", "row", "face"), [("train", 0, 0), ("train", 70, 5), ("test", 12, 11)])
def test_jitter_follows_from_seed_letter_and_face(letters, splits, split, row, face):
    code = letters.codes[split][row]
    uniform = 2 * torch.rand(len(FACES), 5, generator=generator(0, "glyph jitter", code))[face] - 1
    expected = rasterise(shape_of(FACES[face], chr(code)), DEFAULT_JITTER.transform(tuple(uniform.tolist())))
    assert (splits[split].images[row, face, 0].numpy() == expected).all()
    assert splits[split].names[row] == unicodedata.name(chr(code))


def test_jitter_is_as_strong_as_stated():
    """The centre of ink moves by the translation, uniform on [-2, 2]: standard deviation 2 / sqrt(3)."""
    still = glyphs.draw_glyphs(0, Jitter(0, 0, 0, 0))["train"].images[:, :, 0].double()
    moved = glyphs.draw_glyphs(0, Jitter(0, 0, 0, 2))["train"].images[:, :, 0].double()
    place = torch.arange(SIZE).double()
    for weights in (place, place[:, None]):
        shift = [(images * weights).sum((-2, -1)) / images.sum((-2, -1)) for images in (still, moved)]
        moves = shift[1] - shift[0]
        assert moves.abs().max() < 2.01
        assert moves.std().item() == pytest.approx(2 / 3**0.5, rel=0.05)


def test_another_seed_draws_other_pictures_of_the_same_letters(splits):
    other = glyphs.draw_glyphs(1)["test"]
    assert other.names == splits["test"].names
    assert (other.images != splits["test"].images).flatten(2).any(-1).all()


def test_few_pictures_are_cut_off_at_the_rim(splits):
    for classes in splits.values():
        rim = torch.cat([classes.images[..., [0, -1], :].flatten(2), classes.images[..., [0, -1]].flatten(2)], dim=-1)
        assert (rim.amax(-1) > 100).double().mean() < 0.01


def test_same_bytes_in_another_process(splits):
    program = (
        "import hashlib; from metalib.tasks.glyphs import draw_glyphs\n"
        "for name, classes in draw_glyphs(0).items():\n"
        "    print(name, hashlib.sha256(classes.images.numpy().tobytes()).hexdigest())"
    )
    printed = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True)
    here = [(name, hashlib.sha256(classes.images.numpy().tobytes()).hexdigest()) for name, classes in splits.items()]
    assert [tuple(line.split()) for line in printed.stdout.splitlines()] == here


def test_splits_are_disjoint_in_letters_and_scripts(letters):
    codes = [code for of_split in letters.codes.values() for code in of_split]
    assert len(set(codes)) == len(codes)
    scripts = {
        split: {unicodedata.name(chr(code)).split()[0] for code in of_split}
        for split, of_split in letters.codes.items()
    }
    assert scripts == {"train": {"LATIN", "CYRILLIC"}, "validation": {"GREEK"}, "test": {"ARMENIAN", "GEORGIAN"}}
    assert min(len(of_split) for of_split in letters.codes.values()) >= 25


def test_no_two_classes_look_alike_turned_copies_included(letters):
    """A second computation of the distance, from pictures turned first, over every pair of classes of all splits."""
    pictures = []
    for split, codes in letters.codes.items():
        for row, code in enumerate(codes):
            plain = glyphs.plain_images(code).numpy().astype(np.float32) / 255
            turns = letters.turns[split][row].tolist()
            pictures += [np.rot90(plain, k, (1, 2)) for k in range(4) if turns[k]]
    ink = np.stack(pictures)
    padded = np.pad(ink, ((0, 0), (0, 0), (1, 1), (1, 1)))
    shifts = [padded[..., y : y + SIZE, x : x + SIZE] for y, x in ((1, 1), (0, 1), (2, 1), (1, 0), (1, 2))]
    near = np.maximum.reduce(shifts)
    n = len(ink)
    apart = np.empty((len(FACES), n, n), dtype=np.float32)
    for face in range(len(FACES)):
        a, b = ink[:, face].reshape(n, -1), near[:, face].reshape(n, -1)
        outside = 1 - (a @ b.T) / a.sum(axis=1, keepdims=True)
        apart[face] = np.maximum(outside, outside.T)
    distance = np.sort(apart, axis=0)[len(FACES) // 2 - 1]
    assert np.diag(distance).max() < 0.02
    np.fill_diagonal(distance, np.inf)
    assert distance.min() >= glyphs.LOOK_ALIKE - 1e-4


def test_letters_known_to_look_alike_are_one_class(letters):
    names = [{unicodedata.name(chr(code)) for code in of_split} for of_split in letters.codes.values()]
    taken = set.union(*names)
    for first, others in {
        "LATIN CAPITAL LETTER A": ("GREEK CAPITAL LETTER ALPHA", "CYRILLIC CAPITAL LETTER A"),
        "LATIN CAPITAL LETTER C": ("LATIN SMALL LETTER C", "CYRILLIC CAPITAL LETTER ES"),
        "LATIN SMALL LETTER O": ("GREEK SMALL LETTER OMICRON", "ARMENIAN SMALL LETTER OH"),
        "LATIN CAPITAL LETTER K": ("GREEK SMALL LETTER KAPPA", "CYRILLIC SMALL LETTER KA", "LATIN SMALL LETTER KRA"),
        "LATIN CAPITAL LETTER S": ("LATIN SMALL LETTER S", "ARMENIAN CAPITAL LETTER TIWN"),
        "LATIN CAPITAL LETTER V": ("LATIN SMALL LETTER V",),
        "LATIN SMALL LETTER N": ("ARMENIAN SMALL LETTER VO",),
    }.items():
        assert first in taken
        assert not taken & set(others), first
    assert taken >= {"LATIN SMALL LETTER A", "GREEK CAPITAL LETTER DELTA", "ARMENIAN CAPITAL LETTER BEN"}


def test_letters_with_diacritics_and_variants_are_left_out(letters):
    taken = {chr(code) for of_split in letters.codes.values() for code in of_split}
    found = set(map(chr, glyphs.found_letters()))
    for variant in "éÑøŁйЁάΐϊѓҗœﬁʰʙ":
        assert variant in found, variant
        assert variant not in taken, variant


def test_turned_copies_that_are_other_letters_are_no_classes(letters):
    turns = dict(zip(map(chr, letters.codes["train"]), letters.turns["train"].tolist(), strict=True))
    assert all(own for own, *_ in turns.values())
    for symmetric in "HIXNSZ":
        assert not turns[symmetric][2], symmetric
    assert turns["F"] == [True, True, True, True]


def test_faces_of_a_letter_are_different_pictures(letters):
    codes = [code for of_split in letters.codes.values() for code in of_split]
    different = [len(torch.unique(glyphs.plain_images(code).flatten(1), dim=0)) for code in codes]
    assert min(different) >= 8
    assert sum(count == len(FACES) for count in different) >= 0.9 * len(codes)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_episodes_of_20_letters_never_share_a_face_between_support_and_query(splits, split):
    classes = splits[split].with_rotations() if split == "train" else splits[split]
    index = classes.draw_episodes(generator(0, split), (1000,), 20, 5, 5)
    used = torch.zeros(2, 1000, len(FACES), dtype=torch.int64)
    for part, examples in enumerate((index.support, index.query)):
        used[part].scatter_(1, examples.flatten(1), 1)
    assert (used.sum(0) <= 1).all()


def test_documented_counts_are_the_datasets():
    assert glyphs.counts_table() in (ROOT / "docs" / "glyphs.md").read_text()


def test_counts_add_up(letters, splits):
    steps = list(glyphs.glyph_counts().values())
    kept, turned = sum(steps[-2].values()), sum(steps[-1].values())
    assert kept == sum(len(classes.names) for classes in splits.values())
    assert kept + turned == sum(len(classes.with_rotations().names) for classes in splits.values())
    for before, after in itertools.pairwise(steps[:-1]):
        assert all(after[script] <= before[script] for script in before)


def bar(column, rows=slice(2, 10), extra=()):
    image = torch.zeros(12, 12, dtype=torch.uint8)
    image[rows, column] = 255
    for place in extra:
        image[place] = 255
    return image


def test_distance_by_hand():
    foot = bar(5, extra=[(9, 6), (9, 7), (9, 8), (9, 9)])  # 8 pixels upright, a foot of 4
    images = torch.stack([bar(5), bar(6), bar(8), foot])[:, None]
    distance = distances(images)
    expected = torch.tensor([[0, 0, 1, 1 / 4], [0, 0, 1, 1 / 6], [1, 1, 0, 3 / 4], [1 / 4, 1 / 6, 3 / 4, 0]])
    torch.testing.assert_close(distance[0], expected)
    # Turned by 180 degrees, the bar of column 5 stands in column 6; by 90 degrees it lies.
    assert distance[2, 0, 1] == 0
    assert distance[1, 0, 0] == pytest.approx(5 / 8)  # the lying bar and its neighbours cover 3 of 8 pixels
    turned = distances(torch.stack([images[3], torch.rot90(images[3], 1, (-2, -1))]))
    # The second is the first turned by 90 degrees; turned by 270, the first has its foot on the other side.
    assert turned[1, 1, 0].item() == turned[3, 0, 1].item() == 0
    assert min(turned[0, 1, 0], turned[2, 1, 0], turned[3, 1, 0]) > 0.15


def test_distance_is_the_median_of_the_faces_that_both_letters_have():
    near, far, none = bar(6), bar(9), torch.zeros(12, 12, dtype=torch.uint8)
    first = torch.stack([bar(5)] * 4)
    alike = torch.stack([near, near, far, far])
    unlike = torch.stack([near, far, far, none])
    assert distances(torch.stack([first, alike]))[0, 0, 1] == 0
    assert distances(torch.stack([first, unlike]))[0, 0, 1] == 1


def test_classes_are_taken_group_by_group_and_unturned_first():
    distance = torch.ones(4, 4, 4)
    distance[0] = 1 - torch.eye(4)
    distance[0, 0, 1] = distance[0, 1, 0] = 0.01  # 1 looks like 0
    distance[2, 0, 2] = distance[2, 2, 0] = 0.01  # 2 looks like 0 turned by 180 degrees, in the same group
    distance[1, 3, 2] = distance[3, 2, 3] = 0.01  # 3, of a later group, looks like 2 turned by 90 degrees
    taken = distinct_classes(distance, [[0, 1, 2], [3]], 0.09)
    assert taken.tolist() == [[True, True, False, False], [False] * 4, [True, True, False, False], [False] * 4]
