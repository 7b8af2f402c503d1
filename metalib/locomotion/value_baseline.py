"""The value baseline: linear least squares on features of observation and time, refitted for each task and step."""

from typing import NamedTuple

import torch
from torch import Tensor

RIDGE = 1e-5
_CLIP = 10.0
_TRIES = 6


class Fit(NamedTuple):
    """A fitted baseline: ``values`` ``[task, rollout, time]``; ``singular`` ``[task]``, where the ridge was raised."""

    values: Tensor
    singular: Tensor


def features(observations: Tensor) -> Tensor:
    """Return ``[clip(o, +-10), its square, t/100, (t/100)^2, (t/100)^3, 1]``, after Duan et al. (2016), section 3.

    Args:
        observations: ``[..., time, o]``.

    Returns:
        ``[..., time, 2 o + 4]``, float64.
    """
    clipped = observations.double().clamp(-_CLIP, _CLIP)
    time = torch.arange(observations.shape[-2], dtype=torch.float64)[:, None] / 100.0
    powers = torch.cat([time, time**2, time**3, torch.ones_like(time)], dim=-1)
    return torch.cat([clipped, clipped**2, powers.expand(*clipped.shape[:-1], 4)], dim=-1)


def fit_values(observations: Tensor, targets: Tensor, mask: Tensor, ridge: float = RIDGE) -> Fit:
    """Fit each task's values to its ``targets`` by ridge regression and return the fitted values.

    The coefficients of a task solve ``(X^T X + ridge I) w = X^T y`` over the steps that ``mask`` holds. Where that
    matrix is singular in float64 the ridge is raised tenfold, at most five times; a task for which even that fails
    has the mean of its targets as its value.

    Args:
        observations: ``[task, rollout, time, o]``.
        targets: discounted sums of rewards, ``[task, rollout, time]``.
        mask: steps that were taken, ``[task, rollout, time]``.
        ridge: the weight of the squared coefficients, above 0.
    """
    x = features(observations).flatten(1, 2)
    weights = mask.flatten(1).double()
    y = targets.double().flatten(1)
    weighted = (x * weights[..., None]).mT
    gram, moment = weighted @ x, (weighted @ y[..., None])
    solution, singular = _solve(gram, moment, ridge)
    mean = (y * weights).sum(dim=1, keepdim=True) / weights.sum(dim=1, keepdim=True).clamp(min=1.0)
    found = solution.isfinite().all(dim=1)
    values = torch.where(found, (x @ solution.nan_to_num()).squeeze(-1), mean)
    return Fit((values * weights).view(targets.shape), singular)


def _solve(gram: Tensor, moment: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """Return the coefficients ``[task, f, 1]``, not finite where none were found, and where the ridge was raised."""
    identity = torch.eye(gram.shape[-1], dtype=gram.dtype)
    solution = torch.full_like(moment, torch.nan)
    singular = torch.zeros(len(gram), dtype=torch.bool)
    open_tasks = torch.arange(len(gram))
    for attempt in range(_TRIES):
        factor, failed = torch.linalg.cholesky_ex(gram[open_tasks] + ridge * 10**attempt * identity)
        solved = failed == 0
        solution[open_tasks[solved]] = torch.cholesky_solve(moment[open_tasks[solved]], factor[solved])
        open_tasks = open_tasks[~solved]
        if not len(open_tasks):
            break
        singular[open_tasks] = True
    return solution, singular
