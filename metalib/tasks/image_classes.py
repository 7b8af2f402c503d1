"""Few-shot classification: classes of images, and the episodes drawn from them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from metalib.losses import Batch, Episode
from metalib.storage import load_tensors, save_tensors

_SCHEMA = "image classes 1"
_INDEX_SCHEMA = "image episodes 1"


class EpisodeIndex(NamedTuple):
    """Episodes as numbers into :class:`ImageClasses`, int64; the place of a class in ``classes`` is its label.

    ``classes`` ``[..., way]``, and for each the numbers of its examples: ``support`` ``[..., way, shot]`` and
    ``query`` ``[..., way, queries]``. Examples stand in random order, so the first of them are a fair draw too.
    """

    classes: Tensor
    support: Tensor
    query: Tensor


@dataclass(frozen=True)
class ImageClasses:
    """Classes of images from which episodes are drawn.

    Args:
        images: uint8 ``[n_classes, n_examples, channels, height, width]``; 255 is full ink, or white.
        available: bool ``[n_classes, n_examples]``; False where the class lacks that example (its image is 0).
        names: one a class.
        shared_examples: True if example j is made the same way in every class (a type face), so that the support
            and the query of an episode use disjoint sets of examples over all its classes; False if the examples
            of each class are independent.
        turns: bool ``[n_classes, 4]``; whether the class turned by 0, 90, 180 and 270 degrees is a class of its
            own (an X turned is an X again). None: each is.

    Raises:
        ValueError: types or shapes do not fit together.
    """

    images: Tensor
    available: Tensor
    names: tuple[str, ...]
    shared_examples: bool
    turns: Tensor | None = None

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 5:
            raise ValueError(
                "images must be uint8 [n_classes, n_examples, channels, height, width], "
                f"got {self.images.dtype} {list(self.images.shape)}"
            )
        _require_bool("available", self.available, (len(self.images), self.images.shape[1]))
        if self.turns is not None:
            _require_bool("turns", self.turns, (len(self.images), 4))
        if len(self.names) != len(self.images):
            raise ValueError(f"names must be one a class ({len(self.images)}), got {len(self.names)}")

    def with_rotations(self) -> "ImageClasses":
        """Return the classes, then each also turned by 90, 180 and 270 degrees anticlockwise as further classes.

        Those that ``turns`` rules out are left out. The result's ``turns`` allow 0 degrees alone.

        Raises:
            ValueError: the images are not square.
        """
        height, width = self.images.shape[-2:]
        if height != width:
            raise ValueError(f"only square images can be turned, got {height} x {width}")
        turns = torch.ones(len(self.images), 4, dtype=torch.bool) if self.turns is None else self.turns
        kept = [torch.nonzero(turns[:, quarter])[:, 0] for quarter in range(4)]
        return ImageClasses(
            images=torch.cat([torch.rot90(self.images[rows], k, (-2, -1)) for k, rows in enumerate(kept)]),
            available=torch.cat([self.available[rows] for rows in kept]),
            names=tuple(_turned(self.names[row], k) for k, rows in enumerate(kept) for row in rows.tolist()),
            shared_examples=self.shared_examples,
            turns=torch.tensor([[True, False, False, False]]).repeat(sum(map(len, kept)), 1),
        )

    def draw_episodes(
        self, generator: torch.Generator, shape: Sequence[int], way: int, shot: int, queries: int
    ) -> EpisodeIndex:
        """Draw one episode for each place of ``shape``.

        The classes of an episode are distinct, in random order; each set of them is equally likely. Support and
        query of a class are distinct available examples. With ``shared_examples``, the examples of an episode are
        first parted at random in two, as equally as the counts allow; support is drawn from one part and query
        from the other.

        Args:
            generator: CPU generator.
            shape: of the episodes.
            way: classes an episode.
            shot: support examples a class.
            queries: query examples a class.

        Raises:
            ValueError: there are fewer classes, or a class may lack the examples that are asked for.
        """
        support_part = self._support_part(way, shot, queries)
        classes = _draw_subsets(generator, shape, len(self.images), way)
        available = self.available[classes]
        keys = torch.rand(available.shape, generator=generator)
        if not self.shared_examples:
            support, query = _largest(keys, available, shot + queries).split([shot, queries], dim=-1)
            return EpisodeIndex(classes, support, query)
        order = torch.rand(*shape, 1, self.images.shape[1], generator=generator).argsort(dim=-1)
        in_support = order < support_part  # a random order's values, so as many as asked at random places
        support = _largest(keys, available & in_support, shot)
        return EpisodeIndex(classes, support, _largest(keys, available & ~in_support, queries))

    def _support_part(self, way: int, shot: int, queries: int) -> int:
        """Return how many examples the support's part has, after checking that every class can serve."""
        given = f"{way}-way episodes with {shot} support and {queries} query examples a class"
        if min(way, shot, queries) < 1:
            raise ValueError(f"{given}: each of the three must be at least 1")
        n_classes, n_examples = self.available.shape
        if way > n_classes:
            raise ValueError(f"{given}: there are {n_classes} classes, so way must be 1 to {n_classes}")
        missing = n_examples - int(self.available.sum(dim=1).min())
        allowed = n_examples - missing * (2 if self.shared_examples else 1)
        if shot + queries > allowed:
            reason = f"{n_examples} examples a class, of which {missing} can be missing"
            if self.shared_examples:
                reason += " from the support's part or from the query's"
            raise ValueError(f"{given}: there are {reason}, so support and query must be {allowed} or fewer together")
        return min(max(n_examples // 2, shot + missing), n_examples - queries - missing)

    def episodes(self, index: EpisodeIndex) -> Episode:
        """Return the images and labels of the episodes.

        Support ``x`` is uint8 ``[..., way * shot, channels, height, width]``, which the image networks take, and
        ``y`` is int64 ``[..., way * shot]``, 0 to way - 1, ordered by class; the query likewise. Both on the
        images' device.
        """
        return Episode(
            support=self._examples(index.classes, index.support), query=self._examples(index.classes, index.query)
        )

    def draw_examples(self, generator: torch.Generator, shape: Sequence[int]) -> Batch:
        """Draw images uniformly from all that there are: ``x`` uint8 ``[*shape, channels, height, width]``.

        ``y`` ``[*shape]`` holds their numbers of class, 0 to n_classes - 1.
        """
        rows = torch.nonzero(self.available.flatten())[:, 0]
        drawn = rows[torch.randint(len(rows), tuple(shape), generator=generator)]
        x = self.images.flatten(0, 1).index_select(0, drawn.flatten())
        return Batch(x.reshape(*shape, *self.images.shape[2:]), drawn // self.images.shape[1])

    @property
    def fingerprint(self) -> str:
        """A hash of all images."""
        digest = hashlib.sha256(self.available.numpy().tobytes())
        digest.update(self.images.contiguous().numpy().tobytes())
        return digest.hexdigest()

    def _examples(self, classes: Tensor, examples: Tensor) -> Batch:
        n_examples = self.images.shape[1]
        rows = (classes[..., None] * n_examples + examples).flatten(-2).to(self.images.device)
        x = self.images.flatten(0, 1).index_select(0, rows.flatten())
        way, n = examples.shape[-2:]
        y = torch.arange(way, device=x.device).repeat_interleave(n).expand(rows.shape)
        return Batch(x.reshape(*rows.shape, *self.images.shape[2:]), y)


def _require_bool(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tensor.dtype != torch.bool or tensor.shape != shape:
        raise ValueError(f"{name} must be bool {list(shape)}, got {tensor.dtype} {list(tensor.shape)}")


def _turned(name: str, quarter: int) -> str:
    return name if quarter == 0 else f"{name} turned {90 * quarter}"


def _draw_subsets(generator: torch.Generator, shape: Sequence[int], n: int, size: int) -> Tensor:
    """Draw ``size`` distinct numbers below ``n``, in random order, int64 ``[*shape, size]``.

    R. Floyd's method: for j = n - size, ..., n - 1 draw t uniform on 0..j, and take t, or j if t is taken already.
    It needs ``size`` numbers an episode, not ``n``. Every set is equally likely but not every order, hence the
    shuffle.
    """
    chosen = torch.empty(*shape, size, dtype=torch.int64)
    for place, j in enumerate(range(n - size, n)):
        t = torch.randint(j + 1, tuple(shape), generator=generator)
        taken = (chosen[..., :place] == t[..., None]).any(dim=-1)
        chosen[..., place] = torch.where(taken, j, t)
    return chosen.gather(-1, torch.rand(chosen.shape, generator=generator).argsort(dim=-1))


def _largest(keys: Tensor, allowed: Tensor, count: int) -> Tensor:
    """Return the places of the ``count`` largest allowed keys ``[..., n]``, largest first: a fair draw of them."""
    return keys.masked_fill(~allowed, -1.0).topk(count, dim=-1).indices


def save_image_classes(path: Path, classes: ImageClasses) -> None:
    """Write the classes to ``path``."""
    tensors = {"images": classes.images, "available": classes.available}
    if classes.turns is not None:
        tensors["turns"] = classes.turns
    header = {"names": list(classes.names), "shared_examples": classes.shared_examples}
    save_tensors(path, _SCHEMA, tensors, header)


def load_image_classes(path: Path) -> ImageClasses:
    """Return the classes that :func:`save_image_classes` wrote.

    Raises:
        StorageError: the file is missing, damaged or of another kind.
    """
    tensors, header = load_tensors(path, _SCHEMA)
    return ImageClasses(**tensors, names=tuple(header["names"]), shared_examples=header["shared_examples"])


def save_episode_index(path: Path, index: EpisodeIndex) -> None:
    """Write frozen episodes to ``path``."""
    save_tensors(path, _INDEX_SCHEMA, index._asdict(), {})


def load_episode_index(path: Path) -> EpisodeIndex:
    """Return the episodes that :func:`save_episode_index` wrote.

    Raises:
        StorageError: the file is missing, damaged or of another kind.
    """
    tensors, _ = load_tensors(path, _INDEX_SCHEMA)
    return EpisodeIndex(**tensors)
