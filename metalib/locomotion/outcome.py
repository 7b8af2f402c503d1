"""What a step takes and returns."""

from typing import NamedTuple

from torch import Tensor


class Outcome(NamedTuple):
    """The outcome of one step of every body.

    Args:
        rewards: ``[bodies]`` float64; not finite where the body's state or action is not.
        ended: ``[bodies]`` bool, bodies that fell (or arrived); None if the family has no early ends.
    """

    rewards: Tensor
    ended: Tensor | None


def check_action_shape(actions: Tensor, like: Tensor) -> None:
    """Raise a ValueError unless ``actions`` has the shape of ``like`` (a smaller one would silently be repeated)."""
    if actions.shape != like.shape:
        raise ValueError(f"actions must be of shape {list(like.shape)}, got {list(actions.shape)}")
