"""Discounted sums, advantages and the value baseline, against a process worked by hand and NumPy's least squares."""

import numpy as np
import pytest
import torch

from metalib.locomotion.advantages import discounted_sums, estimate_advantages, generalised_advantages, standardised
from metalib.locomotion.surrogate import policy_batch, thinned
from metalib.locomotion.value_baseline import features, fit_values
from tests.made_up_rollouts import POLICY, made_up_rollouts, made_up_theta, numbers

ONES = torch.ones(4, dtype=torch.float64)
VALUES = torch.tensor([2.0, 4.0, 8.0, 6.0], dtype=torch.float64)
ALL, FALLEN = torch.tensor([True] * 4), torch.tensor([True, True, True, False])


def advantages(lam, mask=ALL, rewards=ONES, values=VALUES):
    return generalised_advantages(rewards * mask, values * mask, mask, 0.5, lam).tolist()


def test_discounted_sums_by_hand():
    steps = torch.tensor([[1.0, 2.0, 4.0], [0.0, 0.0, 8.0]])
    assert discounted_sums(steps, 0.5).tolist() == [[3.0, 4.0, 4.0], [2.0, 4.0, 8.0]]
    assert discounted_sums(steps, 0.0).tolist() == steps.tolist()


def test_advantages_by_hand():
    # delta: 1 + 0.5 * 4 - 2, 1 + 0.5 * 8 - 4, 1 + 0.5 * 6 - 8, 1 - 6
    assert advantages(0.0) == [1.0, 1.0, -4.0, -5.0]
    # 1.875 - 2, 1.75 - 4, 1.5 - 8, 1 - 6
    assert advantages(1.0) == [-0.125, -2.25, -6.5, -5.0]
    third = -4 - 0.475 * 5
    second = 1 + 0.475 * third
    assert advantages(0.95) == pytest.approx([1 + 0.475 * second, second, third, -5.0], abs=1e-15)


@pytest.mark.parametrize("lam", [0.0, 0.95, 1.0])
def test_nothing_follows_a_fall(lam):
    whole = generalised_advantages(ONES[:3], VALUES[:3], ALL[:3], 0.5, lam).tolist()
    assert advantages(lam, FALLEN) == [*whole, 0.0]
    # The value of what stands in the padding must not be bootstrapped, nor its reward counted.
    assert generalised_advantages(ONES, VALUES, FALLEN, 0.5, lam).tolist() == [*whole, 0.0]
    ignoring_the_mask = advantages(lam)
    bootstrapped = (1 + 0.5 * 6 - 8, 1 - 8)
    assert ignoring_the_mask[2] != pytest.approx(whole[2], abs=0.1)
    assert bootstrapped[0] != pytest.approx(whole[2], abs=0.1)
    assert bootstrapped[1] == pytest.approx(whole[2])


@pytest.mark.parametrize("lam", [0.0, 0.95, 1.0])
def test_the_true_values_leave_no_advantage(lam):
    left = torch.arange(50, 0, -1)
    true = (1 - 0.99 ** left.double()) / (1 - 0.99)
    ones, mask = torch.ones(50, dtype=torch.float64), torch.ones(50, dtype=torch.bool)
    found = generalised_advantages(ones, true, mask, 0.99, lam)
    torch.testing.assert_close(found, torch.zeros_like(found), rtol=0, atol=1e-12)
    # A process that went on after the limit would have the same value, 100, at every step.
    forever = generalised_advantages(ones, torch.full_like(ones, 100.0), mask, 0.99, lam)
    assert forever[-1].item() == pytest.approx(-99.0)


def test_advantages_have_mean_0_and_deviation_1_in_each_task():
    found = made_up_rollouts([8, 5, 6], 8)
    values, mask = estimate_advantages(found, 0.9, 0.95).values, found.mask
    for task in range(3):
        taken = values[task][mask[task]]
        assert taken.mean().item() == pytest.approx(0, abs=1e-12)
        assert taken.std(correction=0).item() == pytest.approx(1, abs=1e-6)
    assert not values[~mask].any()


def test_equal_values_are_standardised_to_zero():
    values = torch.full((1, 2, 3), 5.0, dtype=torch.float64)
    assert not standardised(values, torch.ones(1, 2, 3, dtype=torch.bool)).any()


def test_more_padding_changes_nothing():
    short, long = made_up_rollouts([6, 4], 6), made_up_rollouts([6, 4], 15)
    long = long._replace(observations=long.observations + 1e3 * ~long.mask[..., None])  # padding that would be noticed
    first, second = (estimate_advantages(found, 0.9, 0.95) for found in (short, long))
    torch.testing.assert_close(second.values[..., :6], first.values, rtol=0, atol=1e-9)
    assert not second.values[..., 6:].any()
    thetas = torch.stack([made_up_theta(0), made_up_theta(1)])
    batches = [
        policy_batch(
            POLICY, thetas, found, torch.cat([first.values, torch.zeros(2, 3, found.mask.shape[2] - 6)], dim=2)
        )
        for found in (short, long)
    ]
    for task, steps in ((0, 18), (1, 12)):
        one, other = (batch.of_task(task) for batch in batches)
        assert one.weights[:steps].tolist() == [1 / steps] * steps
        assert not one.weights[steps:].any()
        for part, same in zip(one, other, strict=True):
            assert torch.equal(part[:steps], same[:steps])


def test_batches_hold_the_steps_in_their_order():
    found = made_up_rollouts([2, 3], 4, rollouts=2)
    thetas = torch.stack([made_up_theta(0), made_up_theta(1)])
    batch = policy_batch(POLICY, thetas, found, found.rewards)
    assert batch.weights.shape == (2, 6)
    for task in range(2):
        steps = int(found.mask[task].sum())
        for part, rows in ((found.observations, batch.observations), (found.actions, batch.actions)):
            assert torch.equal(rows[task, :steps], part[task][found.mask[task]])
        assert torch.equal(batch.advantages[task, :steps], found.rewards[task][found.mask[task]])


def test_steps_come_first_even_where_another_task_has_no_padding():
    found = made_up_rollouts([4, 2], 4, rollouts=2)
    batch = policy_batch(POLICY, torch.stack([made_up_theta(0), made_up_theta(1)]), found, found.rewards)
    assert batch.weights[1].tolist() == [0.25] * 4 + [0.0] * 4
    thin = thinned(batch, 3)
    for part, shown in ((batch.observations, thin.observations), (batch.actions, thin.actions)):
        assert torch.equal(shown[0], part[0][[0, 2, 5]])
        assert torch.equal(shown[1], part[1][[0, 1, 2]])
    assert thin.weights.tolist() == [[pytest.approx(1 / 3)] * 3] * 2


def numpy_features(observations):
    """As Duan et al. (2016) describe them, one row at a time."""
    rows = []
    for time, observation in enumerate(observations):
        clipped = np.clip(observation, -10, 10)
        rows.append([*clipped, *clipped**2, time / 100, (time / 100) ** 2, (time / 100) ** 3, 1.0])
    return np.array(rows)


@pytest.mark.parametrize("ridge", [1e-5, 0.1])
def test_the_baseline_is_ridge_regression(ridge):
    found = made_up_rollouts([12, 9], 12)
    observations = found.observations * 5.0  # some beyond the clip
    targets = discounted_sums(found.rewards, 0.9)
    fit = fit_values(observations, targets, found.mask, ridge)
    assert observations.abs().max() > 10
    assert not fit.singular.any()
    for task, length in ((0, 12), (1, 9)):
        x = np.concatenate([numpy_features(rollout[:length].numpy()) for rollout in observations[task]])
        y = targets[task, :, :length].flatten().numpy()
        with_ridge = np.concatenate([x, np.sqrt(ridge) * np.eye(x.shape[1])])
        w = np.linalg.lstsq(with_ridge, np.concatenate([y, np.zeros(x.shape[1])]), rcond=None)[0]
        np.testing.assert_allclose(fit.values[task, :, :length].flatten().numpy(), x @ w, rtol=0, atol=1e-8)
        assert not fit.values[task, :, length:].any()


def test_features_are_computed_in_float64():
    assert features(torch.zeros(3, 4, 2)).dtype == torch.float64
    assert features(torch.zeros(3, 4, 2)).shape == (3, 4, 8)


@pytest.mark.parametrize("other", ["rewards", "observations"])
def test_each_task_has_a_baseline_and_a_standardisation_of_its_own(other):
    found = made_up_rollouts([8, 8], 8)
    before = estimate_advantages(found, 0.9, 1.0).values
    changed = getattr(found, other).clone()
    changed[1] *= -30
    after = estimate_advantages(found._replace(**{other: changed}), 0.9, 1.0).values
    assert torch.equal(after[0], before[0])
    assert not torch.allclose(after[1], before[1], atol=0.1)


def constant_observations():
    """The observation, its square and the constant feature are the same column; 16 steps make the pivot exactly 0."""
    mask = torch.ones(2, 16, 1, dtype=torch.bool)
    return torch.ones(2, 16, 1, 1, dtype=torch.float64), numbers("targets", 2, 16, 1), mask


def test_a_singular_fit_is_counted_and_solved_with_a_larger_ridge():
    observations, targets, mask = constant_observations()
    fit = fit_values(observations, targets, mask, ridge=1e-17)
    assert fit.singular.tolist() == [True, True]
    means = targets.mean(dim=1, keepdim=True).expand_as(targets)
    torch.testing.assert_close(fit.values, means, rtol=0, atol=1e-2)
    assert not fit_values(observations, targets, mask).singular.any()


def test_only_the_task_that_is_singular_is_counted():
    observations, targets, mask = constant_observations()
    observations = torch.cat([observations, observations], dim=3).repeat(1, 1, 8, 1)
    targets, mask = targets.repeat(1, 1, 8), mask.repeat(1, 1, 8)
    observations[1] = numbers("observations", 16, 8, 2)
    fit = fit_values(observations, targets, mask, ridge=1e-17)
    assert fit.singular.tolist() == [True, False]
    alone = fit_values(observations[1:], targets[1:], mask[1:], ridge=1e-17)
    torch.testing.assert_close(fit.values[1:], alone.values, rtol=0, atol=1e-9)


def test_a_fit_that_fails_altogether_is_the_mean():
    observations, targets, mask = constant_observations()
    mask = mask.clone()
    mask[:, 12:] = False
    fit = fit_values(torch.full_like(observations, torch.nan), targets * mask, mask)
    assert fit.singular.tolist() == [True, True]
    expected = (targets * mask).sum(dim=1, keepdim=True) / 12
    torch.testing.assert_close(fit.values, expected * mask)


def test_no_steps_at_all_are_finite():
    found = made_up_rollouts([0, 3], 5)
    values = estimate_advantages(found, 0.9, 1.0).values
    assert not values[0].any()
    assert values.isfinite().all()
