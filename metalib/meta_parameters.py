"""phi = (theta_0, omega): what is meta-learned, as one flat vector."""

import torch
from torch import Tensor

from metalib.update_rules.protocol import UpdateRule


def join(theta: Tensor, omega: Tensor) -> Tensor:
    """Return phi = (theta_0, omega), ``[..., n_parameters + n_omega]``."""
    return torch.cat([theta, omega], dim=-1)


def split(phi: Tensor, rule: UpdateRule) -> tuple[Tensor, Tensor]:
    """Return theta_0 ``[..., n_parameters]`` and omega ``[..., n_omega]``; the inverse of :func:`join`."""
    n_parameters = phi.shape[-1] - rule.n_omega
    return phi[..., :n_parameters], phi[..., n_parameters:]
