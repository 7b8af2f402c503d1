"""Omniglot and miniImageNet from small folders in the published layout, and what is refused."""

import io
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from metalib.randomness import generator
from metalib.storage import StorageError
from metalib.tasks.image_folders import load_miniimagenet, load_omniglot

COUNTS = {"n_characters": 9, "n_drawings": 3, "n_train": 4, "n_validation": 2}
SPLIT_FILES = {"train": "train.csv", "validation": "val.csv", "test": "test.csv"}
CLASSES = {"train": 3, "validation": 1, "test": 2}


def drawing(character, number):
    """105 x 105 black on white, one bit, as published: a black field of 15 x 15 pixels whose place says which it is."""
    pixels = np.full((105, 105), True)
    pixels[15 * number : 15 * number + 15, 10 * character : 10 * character + 15] = False
    return Image.fromarray(pixels)


@pytest.fixture(name="omniglot")
def _omniglot(tmp_path):
    folder = tmp_path / "omniglot"
    for character in range(9):
        part, alphabet = ("images_background", f"A{character % 2}") if character < 6 else ("images_evaluation", "B")
        place = folder / part / alphabet / f"character{character:02}"
        place.mkdir(parents=True)
        for number in range(3):
            drawing(character, number).save(place / f"{character:04}_{number:02}.png")
    (folder / "images_background" / "A0" / ".DS_Store").write_bytes(b"")
    return folder


@pytest.fixture(name="miniimagenet")
def _miniimagenet(tmp_path):
    folder = tmp_path / "miniimagenet"
    (folder / "images").mkdir(parents=True)
    label = 0
    for split, name in SPLIT_FILES.items():
        rows = ["filename,label"]
        for _ in range(CLASSES[split]):
            for number in range(2):
                filename = f"n{label:08}{number:08}.jpg"
                # 84 x 84 in one colour; one image has its original size
                size = (100, 90) if (label, number) == (1, 1) else (84, 84)
                Image.new("RGB", size, (40 * label, 100 * number, 200)).save(folder / "images" / filename, quality=95)
                rows.append(f"{filename},n{label:08}")
            label += 1
        (folder / name).write_text("\n".join(rows) + "\n")
    return folder


def load_small_miniimagenet(folder):
    return load_miniimagenet(folder, n_classes=CLASSES, n_images=2)


def test_omniglot_is_read_whole_and_parted(omniglot):
    splits = load_omniglot(omniglot, seed=0, **COUNTS)
    assert [len(classes.names) for classes in splits.values()] == [4, 2, 3]
    assert list(splits) == ["train", "validation", "test"]
    names = [name for classes in splits.values() for name in classes.names]
    expected = [f"A{character % 2}/character{character:02}" for character in range(6)]
    assert sorted(names) == sorted(expected + [f"B/character{character:02}" for character in range(6, 9)])
    for classes in splits.values():
        assert classes.images.shape[1:] == (3, 1, 28, 28)
        assert classes.available.all()
        assert not classes.shared_examples
        assert classes.turns is None


def test_omniglot_images_are_their_drawings_with_ink_255(omniglot):
    for classes in load_omniglot(omniglot, seed=0, **COUNTS).values():
        for name, images in zip(classes.names, classes.images, strict=True):
            character = int(name[-2:])
            for number, image in enumerate(images):
                scale = 28 / 105
                row, column = int((15 * number + 7) * scale), int((10 * character + 7) * scale)
                assert image[0, row, column] >= 240
                # 15 x 15 of 105 x 105 pixels are black; resampling keeps the ink but for rounding and the rims
                assert image.sum().item() / 255 == pytest.approx(16, rel=0.1)
                assert image[0, (row + 14) % 28, (column + 14) % 28] == 0


def test_omniglot_split_follows_from_the_seed(omniglot):
    first, again, other = (load_omniglot(omniglot, seed, **COUNTS) for seed in (0, 0, 1))
    assert torch.equal(first["train"].images, again["train"].images)
    assert first["train"].names != other["train"].names
    order = torch.randperm(9, generator=generator(0, "omniglot split"))
    everything = sorted(name for classes in first.values() for name in classes.names)
    assert set(first["train"].names) == {everything[row] for row in order[:4]}
    assert set(first["validation"].names) == {everything[row] for row in order[4:6]}


def test_omniglots_published_counts_are_the_defaults(omniglot):
    with pytest.raises(StorageError, match="holds 9 characters .* not 1623"):
        load_omniglot(omniglot, 0)


def remove(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove, "images_background is missing or is no folder"),
        (lambda root: remove(root / "images_evaluation"), "images_evaluation is missing or is no folder"),
        (lambda root: remove(root / "images_evaluation/B/character07"), "holds 8 characters .* not 9"),
        (
            lambda root: remove(root / "images_background/A1/character03/0003_01.png"),
            r"A1/character03 has 2 images, not 3 \(1 of 9 classes",
        ),
        (
            lambda root: (root / "images_background/A1/character03/0003_01.png").write_bytes(b"no image"),
            "0003_01.png cannot be read as an image",
        ),
    ],
)
def test_a_damaged_omniglot_is_refused(omniglot, damage, message):
    damage(omniglot)
    with pytest.raises(StorageError, match=message):
        load_omniglot(omniglot, 0, **COUNTS)


def test_a_character_in_both_omniglot_folders_is_refused(omniglot):
    shutil.copytree(omniglot / "images_evaluation/B", omniglot / "images_background/B")
    with pytest.raises(StorageError, match="character B/character06 in both folders"):
        load_omniglot(omniglot, 0, **COUNTS)


def test_a_truncated_image_is_refused(omniglot):
    path = omniglot / "images_background/A1/character03/0003_01.png"
    content = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (105, 105), dtype=np.uint8)).save(content, "png")
    path.write_bytes(content.getvalue()[:2000])
    with pytest.raises(StorageError, match="0003_01.png cannot be read as an image"):
        load_omniglot(omniglot, 0, **COUNTS)


@pytest.mark.parametrize("counts", [{"n_train": 7, "n_validation": 2}, {"n_train": 0, "n_validation": 2}])
def test_an_omniglot_split_that_leaves_nothing_is_refused(omniglot, counts):
    with pytest.raises(ValueError, match="at least 1 and some must be left for the test"):
        load_omniglot(omniglot, 0, **{**COUNTS, **counts})


def test_miniimagenet_is_read_in_its_published_split(miniimagenet):
    splits = load_small_miniimagenet(miniimagenet)
    assert {split: classes.names for split, classes in splits.items()} == {
        "train": ("n00000000", "n00000001", "n00000002"),
        "validation": ("n00000003",),
        "test": ("n00000004", "n00000005"),
    }
    for classes in splits.values():
        assert classes.images.shape[1:] == (2, 3, 84, 84)
        for name, images in zip(classes.names, classes.images, strict=True):
            for number, image in enumerate(images):
                colour = torch.tensor([40 * int(name[1:]), 100 * number, 200])[:, None, None]
                assert (image - colour).abs().max() <= 3  # JPEG


def test_miniimagenets_published_counts_are_the_defaults(miniimagenet):
    with pytest.raises(StorageError, match="train.csv lists 3 classes, not 64"):
        load_miniimagenet(miniimagenet)
    with pytest.raises(StorageError, match="n00000000 has 2 images, not 600"):
        load_miniimagenet(miniimagenet, n_classes=CLASSES)


def edit(name, old, new):
    def damage(root):
        path = root / name
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: remove(root / "images"), "images is missing or is no folder"),
        (lambda root: remove(root / "val.csv"), "val.csv is missing; the split's files are train.csv, val.csv"),
        (edit("val.csv", "filename,label", "file,class"), r"needs the columns filename and label, but has \['file'"),
        (lambda root: (root / "val.csv").write_text(""), r"needs the columns filename and label, but has \[\]"),
        (lambda root: (root / "val.csv").write_bytes(b"\xff\xfe\x00"), "val.csv cannot be read as CSV"),
        (edit("val.csv", "00000001.jpg,n00000003", "00000001.jpg"), "val.csv has a row without filename or label"),
        (edit("val.csv", "00000001.jpg", "00000000.jpg"), "lists n0000000300000000.jpg more than once"),
        (edit("test.csv", "n00000005\n", "n00000004\n"), "test.csv lists 1 classes, not 2"),
        (edit("test.csv", "01.jpg,n00000005", "01.jpg,n00000004"), "n00000004 has 3 images, not 2"),
        (edit("test.csv", ",n00000005", ",n00000001"), "class n00000001 stands in both train.csv and test.csv"),
        (
            lambda root: remove(root / "images/n0000000200000001.jpg"),
            "1 of 12 listed images are missing, the first .*n0000000200000001.jpg",
        ),
        (
            lambda root: (root / "images/n0000000200000001.jpg").write_bytes(b"no image"),
            "n0000000200000001.jpg cannot be read as an image",
        ),
    ],
)
def test_a_damaged_miniimagenet_is_refused(miniimagenet, damage, message):
    damage(miniimagenet)
    with pytest.raises(StorageError, match=message):
        load_small_miniimagenet(miniimagenet)
