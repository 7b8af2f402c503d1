"""Means, spreads and intervals of scores. Random numbers come from a generator that is passed in."""

from typing import NamedTuple

import torch
from torch import Tensor


class Summary(NamedTuple):
    """Statistics of scores ``[seed, task, step]``, each of shape ``[step]``."""

    mean: Tensor
    median: Tensor
    ci95_low: Tensor
    ci95_high: Tensor
    seed_std: Tensor
    n_diverged: Tensor


def summarise(scores: Tensor, diverged_above: float, generator: torch.Generator, samples: int) -> Summary:
    """Summarise scores ``[seed, task, step]`` over seeds and tasks, for each step.

    A score that is not finite or above ``diverged_above`` has diverged: it is counted (``n_diverged``, in
    pairs of seed and task) and left out of mean, interval and seed spread, but kept in the median.

    The mean averages each task over its seeds, then tasks. The 95% interval is the percentile bootstrap
    over tasks: what another draw of tasks would give, for these trained seeds. ``seed_std`` is the
    standard deviation (n - 1) over seeds of the mean over tasks: what another training run would give;
    NaN for one seed.

    Args:
        scores: ``[seed, task, step]``.
        diverged_above: the largest score that counts as not diverged.
        generator: for the bootstrap.
        samples: bootstrap resamples.
    """
    scores = scores.double()
    diverged = ~(scores <= diverged_above)  # true for NaN as well
    kept = scores.masked_fill(diverged, torch.nan)
    over_seeds = kept.nanmean(dim=0)
    low, high = _bootstrap_interval(over_seeds, generator, samples)
    return Summary(
        mean=over_seeds.nanmean(dim=0),
        median=scores.masked_fill(scores.isnan(), torch.inf).flatten(0, 1).median(dim=0).values,
        ci95_low=low,
        ci95_high=high,
        seed_std=kept.nanmean(dim=1).std(dim=0) if len(scores) > 1 else torch.full(scores.shape[2:], torch.nan),
        n_diverged=diverged.sum(dim=(0, 1)),
    )


def _bootstrap_interval(values: Tensor, generator: torch.Generator, samples: int) -> tuple[Tensor, Tensor]:
    """Return the 2.5% and 97.5% points of the mean over resampled rows of ``values`` ``[n, column]``."""
    weights = _resampled(len(values), generator, samples)
    present = values.isfinite().double()
    means = (weights @ values.nan_to_num(nan=0.0)) / (weights @ present)
    low, high = torch.nanquantile(means, torch.tensor([0.025, 0.975], dtype=torch.float64), dim=0)
    return low, high


def _resampled(n: int, generator: torch.Generator, samples: int) -> Tensor:
    """Return how often each of ``n`` rows is drawn in each resample, ``[samples, n]``."""
    drawn = torch.randint(n, (samples, n), generator=generator)
    ones = torch.ones(samples, n, dtype=torch.float64)
    return torch.zeros(samples, n, dtype=torch.float64).scatter_add_(1, drawn, ones)


def single_run_means(scores: Tensor, diverged_above: float, generator: torch.Generator, samples: int) -> Tensor:
    """Return what one training run, judged on one draw of tasks, might report: resampled means ``[samples, step]``.

    Each resample takes one seed at random and as many tasks as there are, drawn with replacement. What has diverged is
    left out of the mean, as in :func:`summarise`, whose arguments these are.
    """
    scores = scores.double()
    kept = scores.masked_fill(~(scores <= diverged_above), torch.nan)
    seeds = torch.randint(len(scores), (samples,), generator=generator)
    weights = _resampled(scores.shape[1], generator, samples)
    means = torch.empty(samples, scores.shape[2], dtype=torch.float64)
    for seed, values in enumerate(kept):
        mine = weights[seeds == seed]
        means[seeds == seed] = (mine @ values.nan_to_num(nan=0.0)) / (mine @ values.isfinite().double())
    return means
