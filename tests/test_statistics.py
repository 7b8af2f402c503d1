import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metalib.randomness import generator
from metalib.statistics import single_run_means, summarise


def summary(scores, samples=2000, above=100.0):
    return summarise(torch.as_tensor(scores, dtype=torch.float32), above, generator(0, "bootstrap"), samples)


def test_hand_worked_case_with_diverged_scores():
    # two seeds, three tasks, one step; 500 and NaN have diverged
    result = summary([[[1.0], [2.0], [500.0]], [[3.0], [math.nan], [6.0]]])
    assert result.mean.tolist() == [pytest.approx((2.0 + 2.0 + 6.0) / 3)]
    assert result.n_diverged.tolist() == [2]
    assert result.seed_std.tolist() == [pytest.approx(np.std([1.5, 4.5], ddof=1))]
    # median of 1, 2, 3, 6, 500, inf: torch takes the lower of the two middle values
    assert result.median.tolist() == [3.0]


@pytest.mark.parametrize("diverged", [math.inf, math.nan])
def test_the_median_of_mostly_diverged_scores_is_infinite(diverged):
    assert summary([[[diverged], [diverged], [1.0]]]).median.tolist() == [math.inf]


def test_exactly_at_the_limit_is_not_diverged():
    assert summary([[[100.0], [1.0]]]).n_diverged.tolist() == [0]


def test_interval_has_the_width_of_the_normal_theory():
    scores = torch.randn(1, 1000, 1, generator=generator(0, "scores")) + 5
    result = summary(scores)
    expected = 1.96 * scores.std().item() / math.sqrt(1000)
    assert (result.ci95_high - result.ci95_low).item() / 2 == pytest.approx(expected, rel=0.08)
    assert result.ci95_low < result.mean < result.ci95_high


def test_interval_covers_the_true_mean_about_95_times_in_100():
    covered = 0
    for trial in range(1000):
        scores = torch.rand(1, 60, 1, generator=generator(trial, "coverage test")) ** 2
        result = summarise(scores, 100.0, generator(trial, "bootstrap"), 500)
        covered += bool(result.ci95_low <= 1 / 3 <= result.ci95_high)
    # 93.4% in 3,000 other trials (the percentile bootstrap falls a little short at n = 60), four standard errors.
    assert 903 <= covered <= 965


def test_single_runs_differ_by_seed_and_by_tasks():
    by_seed = torch.tensor([1.0, 3.0])[:, None, None].expand(2, 50, 1)  # a seed's tasks are all alike
    means = single_run_means(by_seed, 100.0, generator(0, "single runs"), 4000)
    assert sorted(means.unique().tolist()) == [1.0, 3.0]
    assert (means == 3).double().mean().item() == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(4000))
    tasks = torch.randn(1, 400, 1, generator=generator(0, "tasks")) + 5
    means = single_run_means(tasks, 100.0, generator(1, "single runs"), 4000)
    assert means.mean().item() == pytest.approx(tasks.mean().item(), abs=0.01)
    assert means.std().item() == pytest.approx(tasks.std().item() / 20, rel=0.05)


def test_single_runs_leave_out_what_diverged():
    scores = torch.tensor([[[1.0], [math.nan]], [[500.0], [1.0]]])
    found = single_run_means(scores, 100.0, generator(0, "single runs"), 100)
    assert set(found[~found.isnan()].tolist()) == {1.0}
    assert found.isnan().any()  # a task drawn twice that has diverged leaves nothing


def test_one_seed_has_no_seed_spread():
    assert math.isnan(summary([[[1.0], [2.0]]]).seed_std.item())


def test_a_step_where_all_diverged_gives_nan_not_an_error():
    result = summary([[[1.0, math.inf], [2.0, math.inf]]])
    assert result.mean[0] == 1.5
    assert math.isnan(result.mean[1])
    assert result.n_diverged.tolist() == [0, 2]


@given(st.lists(st.floats(0, 50), min_size=2, max_size=30))
def test_the_interval_holds_the_mean_and_stays_in_the_range_of_tasks(values):
    result = summary([[[v] for v in values]], samples=200)
    low, mean, high = (float(part) for part in (result.ci95_low, result.mean, result.ci95_high))
    assert min(values) - 1e-4 <= low <= high <= max(values) + 1e-4
    assert min(values) - 1e-4 <= mean <= max(values) + 1e-4


def test_same_generator_same_interval():
    scores = torch.rand(2, 30, 3, generator=generator(0, "scores"))
    assert all(torch.equal(a, b) for a, b in zip(summary(scores), summary(scores), strict=True))
