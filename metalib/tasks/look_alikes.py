"""Which letters look the same, so that they must not be two classes."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d


def distances(images: Tensor) -> Tensor:
    """Return how unlike each letter is to each letter turned, ``[4, n, n]``: turned by 0, 90, 180, 270 degrees.

    In one face, the part of a letter's ink that lies more than a pixel from the other's ink, or the other's from
    the one's, whichever is larger: 0 for the same shape, 1 for shapes that do not touch. Entry [k, i, j] is the
    median over the faces that have both, the lower of the middle two: letters are as near as in half of the faces.
    Unlike a difference of pixels it forgives another weight of line but not a further stroke.

    Args:
        images: plain pictures, uint8 ``[n, faces, size, size]``; all 0 where a face lacks the letter.
    """
    ink = images.to(torch.float32) / 255
    near = _within_a_pixel(ink)
    total = ink.sum(dim=(-2, -1)).T[:, :, None]  # [faces, n, 1]
    total = total.masked_fill(total == 0, torch.nan)
    apart = [1 - _overlaps(ink, torch.rot90(near, quarter, (-2, -1))) / total for quarter in range(4)]
    # The other direction: j turned by k against i is j against i turned by -k.
    both = [torch.maximum(apart[quarter], apart[-quarter % 4].mT) for quarter in range(4)]
    return torch.stack([faces.nanmedian(dim=0).values for faces in both])


def _within_a_pixel(ink: Tensor) -> Tensor:
    """Return the largest value among each pixel and its four neighbours."""
    upright = max_pool2d(ink, (3, 1), stride=1, padding=(1, 0))
    return torch.maximum(upright, max_pool2d(ink, (1, 3), stride=1, padding=(0, 1)))


def _overlaps(ink: Tensor, near: Tensor) -> Tensor:
    """Return ``sum over pixels of ink[i] * near[j]`` by face, ``[faces, n, n]``."""
    first, second = (part.flatten(-2).transpose(0, 1) for part in (ink, near))
    return first @ second.mT


def distinct_classes(distance: Tensor, groups: Sequence[Sequence[int]], threshold: float) -> Tensor:
    """Return bool ``[n, 4]``: which letters, turned by 0, 90, 180, 270 degrees, are classes of their own.

    A letter is taken if it is at least ``threshold`` from every class taken before. Group by group: first the
    letters as they are, in the order given, then the turned copies of those taken.

    Args:
        distance: of :func:`distances`.
        groups: letters by number, first group first; letters in no group are not taken.
        threshold: of the distance.
    """
    taken = torch.zeros(distance.shape[1], 4, dtype=torch.bool)
    for group in groups:
        for quarter in range(4):
            for letter in group:
                if quarter == 0 or taken[letter, 0]:
                    taken[letter, quarter] = _nearest(distance, taken, letter, quarter) >= threshold
    return taken


def _nearest(distance: Tensor, taken: Tensor, letter: int, quarter: int) -> float:
    """Return the distance of a letter, turned by ``quarter``, to the nearest class taken."""
    # The letter turned by k against another turned by l is the letter against the other turned by l - k.
    by_turn = torch.stack([distance[(other - quarter) % 4, letter] for other in range(4)], dim=1)
    return by_turn.masked_fill(~taken, torch.inf).min().item()
