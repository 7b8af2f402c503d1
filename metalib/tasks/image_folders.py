"""Few-shot datasets of others, read from the folders in which they are published: Omniglot and miniImageNet."""

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from metalib.randomness import generator
from metalib.storage import StorageError
from metalib.tasks.image_classes import ImageClasses

OMNIGLOT_FOLDERS = ("images_background", "images_evaluation")
OMNIGLOT_SIZE = 28
MINIIMAGENET_FILES = MappingProxyType({"train": "train.csv", "validation": "val.csv", "test": "test.csv"})
MINIIMAGENET_CLASSES = MappingProxyType({"train": 64, "validation": 16, "test": 20})
MINIIMAGENET_SIZE = 84


def load_omniglot(
    folder: Path,
    seed: int,
    n_characters: int = 1623,
    n_drawings: int = 20,
    n_train: int = 1200,
    n_validation: int = 100,
) -> dict[str, ImageClasses]:
    """Read Omniglot (Lake, Salakhutdinov and Tenenbaum, 2015) and part its characters at random.

    The characters of both folders are taken together, ordered by alphabet and character, and drawn by the seed:
    ``n_train`` for training as in Finn et al. (2017), section 5.2, then ``n_validation``, the rest for the test.
    Drawings are reduced to 28 x 28 grey (Lanczos) and inverted, so that ink is 255. A class is named by
    alphabet/character.

    Args:
        folder: holds images_background and images_evaluation, each with <alphabet>/<character>/<drawing>.png.
        seed: of the split.
        n_characters: how many characters the two folders must hold together.
        n_drawings: how many drawings each character must have.
        n_train: characters for training.
        n_validation: characters for validation.

    Raises:
        StorageError: a folder is missing, a count is wrong, or an image cannot be read.
        ValueError: no character is left for the test.
    """
    if min(n_train, n_validation) < 1 or n_train + n_validation >= n_characters:
        raise ValueError(
            f"{n_train} training and {n_validation} validation characters of {n_characters}: "
            "each must be at least 1 and some must be left for the test"
        )
    drawings = _omniglot_drawings(folder)
    if len(drawings) != n_characters:
        raise StorageError(
            f"{folder} holds {len(drawings)} characters in {' and '.join(OMNIGLOT_FOLDERS)}, not {n_characters}; "
            "unpack both of Omniglot's archives there"
        )
    _require_counts(folder, {name: len(paths) for name, paths in drawings.items()}, n_drawings)
    names = sorted(drawings)
    order = torch.randperm(n_characters, generator=generator(seed, "omniglot split")).tolist()
    parts = {
        "train": order[:n_train],
        "validation": order[n_train : n_train + n_validation],
        "test": order[n_train + n_validation :],
    }
    return {
        split: _classes({names[row]: drawings[names[row]] for row in sorted(rows)}, "L", OMNIGLOT_SIZE, invert=True)
        for split, rows in parts.items()
    }


def _omniglot_drawings(folder: Path) -> dict[str, list[Path]]:
    """Return the drawings of each character, ordered by name."""
    drawings: dict[str, list[Path]] = {}
    for part in OMNIGLOT_FOLDERS:
        _require_folder(folder / part, "Omniglot's folders are images_background and images_evaluation")
        for character in sorted(path for path in (folder / part).glob("*/*") if path.is_dir()):
            name = f"{character.parent.name}/{character.name}"
            if name in drawings:
                raise StorageError(f"{folder} holds the character {name} in both folders; unpack it again")
            drawings[name] = sorted(character.glob("*.png"))
    return drawings


def load_miniimagenet(
    folder: Path, n_classes: Mapping[str, int] = MINIIMAGENET_CLASSES, n_images: int = 600
) -> dict[str, ImageClasses]:
    """Read miniImageNet (Vinyals et al., 2016) in the split of Ravi and Larochelle (2017).

    Images are colour, 84 x 84; others are resized to that (Lanczos). A class is named by its label. All images
    together take 1.3 GB.

    Args:
        folder: holds images/ and train.csv, val.csv and test.csv with the columns filename and label.
        n_classes: how many classes each of "train", "validation" and "test" must have.
        n_images: how many images each class must have.

    Raises:
        StorageError: a file is missing or not as described, a count is wrong, a class stands in two splits, or an
            image is missing or cannot be read.
    """
    _require_folder(folder / "images", "miniImageNet's images lie in images/, beside train.csv, val.csv and test.csv")
    splits = {split: _listed_images(folder, name) for split, name in MINIIMAGENET_FILES.items()}
    _require_separate({MINIIMAGENET_FILES[split]: set(images) for split, images in splits.items()}, folder)
    for split, images in splits.items():
        path = folder / MINIIMAGENET_FILES[split]
        if len(images) != n_classes[split]:
            raise StorageError(f"{path} lists {len(images)} classes, not {n_classes[split]}; fetch the published file")
        _require_counts(path, {label: len(paths) for label, paths in images.items()}, n_images)
    _require_files([path for images in splits.values() for paths in images.values() for path in paths])
    return {split: _classes(images, "RGB", MINIIMAGENET_SIZE) for split, images in splits.items()}


def _listed_images(folder: Path, name: str) -> dict[str, list[Path]]:
    """Return the images of each label that a split's file lists, ordered by label and file name.

    Raises:
        StorageError: the file is missing, unreadable, lacks a column or a value, or lists an image twice.
    """
    path = folder / name
    columns, rows = _read_table(path)
    if not {"filename", "label"} <= set(columns):
        raise StorageError(f"{path} needs the columns filename and label, but has {columns}")
    if not all(row["filename"] and row["label"] for row in rows):
        raise StorageError(f"{path} has a row without filename or label; fetch the published file")
    repeated = [filename for filename, count in Counter(row["filename"] for row in rows).items() if count > 1]
    if repeated:
        raise StorageError(f"{path} lists {repeated[0]} more than once; fetch the published file")
    images: dict[str, list[Path]] = {label: [] for label in sorted({row["label"] for row in rows})}
    for filename, label in sorted((row["filename"], row["label"]) for row in rows):
        images[label].append(folder / "images" / filename)
    return images


def _read_table(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Return the columns and the rows of a CSV file."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            return list(reader.fieldnames or ()), list(reader)
    except FileNotFoundError as error:
        raise StorageError(
            f"{path} is missing; the split's files are {', '.join(MINIIMAGENET_FILES.values())}"
        ) from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise StorageError(f"{path} cannot be read as CSV ({error}); fetch the published file") from error


def _require_folder(path: Path, layout: str) -> None:
    if not path.is_dir():
        raise StorageError(f"{path} is missing or is no folder; {layout}")


def _require_files(paths: Sequence[Path]) -> None:
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise StorageError(
            f"{len(missing)} of {len(paths)} listed images are missing, the first {missing[0]}; unpack the images again"
        )


def _require_counts(where: Path, counts: Mapping[str, int], expected: int) -> None:
    wrong = [name for name, count in counts.items() if count != expected]
    if wrong:
        raise StorageError(
            f"{where}: {wrong[0]} has {counts[wrong[0]]} images, not {expected} "
            f"({len(wrong)} of {len(counts)} classes have another number); unpack the dataset again"
        )


def _require_separate(labels: Mapping[str, set[str]], folder: Path) -> None:
    names = list(labels)
    for place, first in enumerate(names):
        for second in names[place + 1 :]:
            both = sorted(labels[first] & labels[second])
            if both:
                raise StorageError(f"{folder}: the class {both[0]} stands in both {first} and {second}")


def _classes(
    images: Mapping[str, Sequence[Path]], mode: Literal["L", "RGB"], size: int, invert: bool = False
) -> ImageClasses:
    """Read the images of every class into one tensor, classes in the order given."""
    n_examples = len(next(iter(images.values())))
    tensor = torch.empty(len(images), n_examples, Image.getmodebands(mode), size, size, dtype=torch.uint8)
    for row, paths in enumerate(images.values()):
        for place, path in enumerate(paths):
            tensor[row, place] = _read(path, mode, size)
    available = torch.ones(len(images), n_examples, dtype=torch.bool)
    return ImageClasses(255 - tensor if invert else tensor, available, tuple(images), shared_examples=False)


def _read(path: Path, mode: Literal["L", "RGB"], size: int) -> Tensor:
    """Return the image as uint8 ``[channels, size, size]``.

    Raises:
        StorageError: the file is no image or is damaged.
    """
    try:
        with Image.open(path) as image:
            pixels = np.array(image.convert(mode).resize((size, size), Image.Resampling.LANCZOS))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise StorageError(f"{path} cannot be read as an image ({error}); unpack the dataset again") from error
    return torch.from_numpy(pixels.reshape(size, size, -1)).permute(2, 0, 1)
