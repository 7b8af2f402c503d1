from dataclasses import replace

import torch

from metalib.locomotion.collector import collect
from metalib.policy_evaluation import adapted_returns, choose_policy_rate
from metalib.randomness import generator
from metalib.trained_policy import TrainedPolicy
from metalib.update_rules import GradientDescent
from tests.point_search import POINT, start, trained

GOALS = POINT.draw_goals(generator(0, "goals"), 3)
RULE = GradientDescent(0.02)


def numbers(step):
    return generator(0, "rollouts", step)


def rollouts_of(thetas, step, k):
    policy = trained()
    return collect(POINT, policy.policy, thetas, GOALS, k, policy.horizon, numbers(step), threads=1)


def test_returns_are_means_of_fresh_rollouts_before_and_after_each_step():
    policy = trained()
    told: list[int] = []
    found = adapted_returns(policy, RULE, GOALS, 4, 2, 1, numbers, told.append)
    assert found.shape == (2, 3, 3)
    assert told == [3, 3]
    for seed, phi in enumerate(policy.phi):
        for step in range(3):
            thetas = policy.adaptation(RULE, 4, 1).adapted(phi, GOALS, step, numbers)
            expected = rollouts_of(thetas, step, 4).returns.mean(dim=1)
            torch.testing.assert_close(found[seed, :, step], expected, rtol=0, atol=1e-6)
    adapted_on = rollouts_of(policy.phi[0].expand(3, -1), 0, 4).returns.mean(dim=1)
    assert not torch.allclose(found[0, :, 1], adapted_on, atol=1e-4)


def test_every_seed_and_method_meets_the_same_noise():
    policy = trained(phi=start().expand(2, -1))
    found = adapted_returns(policy, RULE, GOALS, 4, 1, 1, numbers)
    assert torch.equal(found[0], found[1])


def test_more_steps_do_not_change_the_first():
    long, short = (adapted_returns(trained(), RULE, GOALS, 4, steps, 1, numbers) for steps in (2, 1))
    assert torch.equal(long[..., :2], short)


def test_the_rate_with_the_best_return_after_one_step_is_chosen():
    policy, rates = trained("pretrained", rule=None), [0.3, 0.001, 0.03]
    found = choose_policy_rate(policy, rates, GOALS, 1, numbers)
    means = {
        rate: adapted_returns(policy, GradientDescent(rate), GOALS, policy.rollouts, 1, 1, numbers)[..., 1]
        .mean()
        .item()
        for rate in rates
    }
    best = max(means, key=lambda rate: means[rate])
    assert found == {"chosen": best, "0.001": means[0.001], "0.03": means[0.03], "0.3": means[0.3]}
    assert len(set(means.values())) == 3


class PartlyBroken:
    """A sampler whose first rollouts of each task broke down at once; costs make them look the best."""

    def __init__(self, of, broken):
        self.of, self.broken = of, broken

    def __getattr__(self, name):
        return getattr(self.of, name)

    def collect(self, thetas, goals, numbers):
        found = self.of.collect(thetas, goals, numbers)
        found.rewards[:, : self.broken] = 0
        found.non_finite[:, : self.broken] = True
        return found


def partly_broken(monkeypatch, broken):
    own = TrainedPolicy.adaptation

    def adaptation(*arguments, **named):
        found = own(*arguments, **named)
        return replace(found, sampler=PartlyBroken(found.sampler, broken))  # type: ignore[arg-type]

    monkeypatch.setattr(TrainedPolicy, "adaptation", adaptation)


def test_rollouts_that_broke_down_do_not_count(monkeypatch):
    whole = rollouts_of(trained().phi[0].expand(3, -1), 0, 4).returns
    partly_broken(monkeypatch, 3)
    found = adapted_returns(trained(), RULE, GOALS, 4, 0, 1, numbers)
    torch.testing.assert_close(found[0, :, 0], whole[:, 3])
    partly_broken(monkeypatch, 4)
    assert adapted_returns(trained(), RULE, GOALS, 4, 0, 1, numbers).isnan().all()


def test_a_rate_at_which_some_rollouts_break_down_is_not_chosen(monkeypatch):
    partly_broken(monkeypatch, 1)
    assert choose_policy_rate(trained(), [0.01], GOALS, 1, numbers) == {"chosen": 0.01, "0.01": None}


def test_of_equal_rates_the_smallest_is_chosen():
    policy = trained(horizon=1, rollouts=1)  # one step: no advantage, no adaptation
    found = choose_policy_rate(policy, [0.5, 0.1, 0.2], GOALS, 1, numbers)
    assert found["chosen"] == 0.1
    assert found["0.1"] == found["0.5"]


def test_a_rate_at_which_the_policy_breaks_down_is_not_chosen():
    """No return is larger than that of no steps, 0, where rewards are negative."""
    found = choose_policy_rate(trained(), [0.01, 1e38], GOALS, 1, numbers)
    assert found["chosen"] == 0.01
    assert list(found) == ["chosen", "0.01", "1e+38"]
    assert found["0.01"] is not None
    assert found["0.01"] < 0
    assert found["1e+38"] is None
    values = adapted_returns(trained(), GradientDescent(1e38), GOALS, 4, 1, 1, numbers)
    assert values[..., 0].isfinite().all()
    assert values[..., 1].isnan().any()
    assert choose_policy_rate(trained(), [1e38], GOALS, 1, numbers) == {"chosen": 1e38, "1e+38": None}
