"""When training has failed."""

import torch
from torch import Tensor

from metalib.errors import MetalibError


class DivergenceError(MetalibError):
    """Training met a loss that is not finite."""


def refuse_divergence(losses: Tensor, first_step: int, seeds: tuple[int, ...]) -> None:
    """Raise :class:`DivergenceError`, with step, seed and likely cause, unless all losses are finite.

    Args:
        losses: ``[steps, seeds]``.
        first_step: the number of the first of these steps.
        seeds: the seeds' names.
    """
    bad = torch.nonzero(~torch.isfinite(losses))
    if len(bad) == 0:
        return
    row, column = (int(part) for part in bad[0])
    raise DivergenceError(
        f"training diverged: the loss of seed {seeds[column]} is {losses[row, column].item()} at step "
        f"{first_step + row}; the likely cause is a learning_rate or inner_rate that is too large: lower it"
    )
