"""The mean of phi over the end of training: stochastic weight averaging (Izmailov et al. 2018)."""

from typing import NamedTuple

import torch
from torch import Tensor


class PhiAverage(NamedTuple):
    """A running mean of phi: the ``total`` ``[seeds, n_phi]``, float64, of ``terms`` of them, a scalar.

    A constant learning rate keeps phi moving about a broad minimum; the mean lies nearer its middle than any of them.
    """

    total: Tensor
    terms: Tensor

    def include(self, phi: Tensor) -> "PhiAverage":
        """Return the average of one more phi ``[seeds, n_phi]``."""
        return PhiAverage(self.total + phi, self.terms + 1)

    def mean(self, otherwise: Tensor) -> Tensor:
        """Return the mean ``[seeds, n_phi]``, in the precision of ``otherwise``, and that where nothing is averaged."""
        return (self.total / self.terms).to(otherwise.dtype) if self.terms else otherwise


def empty_average(phi: Tensor) -> PhiAverage:
    """Return the average of nothing yet, for phi ``[seeds, n_phi]``."""
    return PhiAverage(torch.zeros_like(phi, dtype=torch.float64), torch.zeros((), dtype=torch.int64))
