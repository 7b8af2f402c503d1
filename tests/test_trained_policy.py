import pytest
import torch

from metalib.locomotion.policy import GaussianPolicy
from metalib.locomotion.view import ObservationView
from metalib.randomness import generator
from metalib.storage import StorageError, save_tensors
from metalib.trained_policy import TrainedPolicy, at_test
from metalib.update_rules import GradientDescent, LSTMRule, MetaSGD, ScheduledGradientDescent
from tests.point_search import POINT, small_policy, trained

GOALS = torch.tensor([[0.3, -0.2], [0.0, 0.4]])


def rollouts():
    return generator(0, "rollouts")


@pytest.fixture(name="path")
def _path(tmp_path):
    return tmp_path / "policy.safetensors"


def of_rule(rule):
    phi = torch.randn(2, small_policy().n_parameters + rule.n_omega, generator=generator(0, "phi")) / 10
    return trained(rule=rule, phi=phi)


@pytest.mark.parametrize(
    "rule",
    [GradientDescent(0.1), ScheduledGradientDescent((0.1, 0.05), True), MetaSGD(42 + 2, 0.1), LSTMRule(hidden_size=3)],
)
def test_saved_and_loaded_policies_are_equal_and_adapt_alike(rule, path):
    policy = of_rule(rule)
    policy.save(path)
    loaded = TrainedPolicy.load(path, family="point_navigation")
    assert torch.equal(loaded.phi, policy.phi)
    for name in set(vars(policy)) - {"phi"}:
        assert getattr(loaded, name) == getattr(policy, name), name
    for index in (0, 1):
        thetas = policy.adapt(GOALS, rollouts(), index=index)
        assert torch.equal(loaded.adapt(GOALS, rollouts(), index=index), thetas)
        assert thetas.shape == (2, small_policy().n_parameters)
        assert not torch.equal(*thetas)


def test_a_policy_without_a_rule_survives_storage(path):
    trained("pretrained", rule=None).save(path)
    assert TrainedPolicy.load(path).rule is None


def test_the_same_policy_is_the_same_bytes(path, tmp_path):
    trained().save(path)
    trained().save(tmp_path / "again")
    assert path.read_bytes() == (tmp_path / "again").read_bytes()


def test_no_steps_are_the_initial_policy():
    thetas = trained().adapt(GOALS, rollouts(), steps=0, index=1)
    assert torch.equal(thetas, trained().phi[1].expand(2, -1))


def test_by_default_it_takes_the_steps_of_training_and_baselines_one():
    for inner_steps, taken in ((2, 2), (0, 1)):
        policy = trained(inner_steps=inner_steps)
        assert torch.equal(policy.adapt(GOALS, rollouts()), policy.adapt(GOALS, rollouts(), steps=taken))
    one, two = (trained().adapt(GOALS, rollouts(), steps=steps) for steps in (1, 2))
    assert not torch.equal(one, two)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": -1}, "steps must be 0 or more, got -1"),
        ({"rollouts": 0}, "rollouts must be 1 or more, got 0"),
        ({"goals": torch.tensor([[0.6, 0.0]])}, "point_navigation: the goal .* is not allowed"),
        ({"goals": torch.tensor([[0.6, 0.0]]), "steps": 0}, "point_navigation: the goal .* is not allowed"),
        ({"goals": torch.tensor([[torch.nan, 0.0]])}, "point_navigation: the goal .* is not allowed"),
        ({"goals": torch.tensor([0.1, 0.0])}, r"goals must be of shape \[tasks, 2\], got \[2\]"),
        ({"index": 2}, "index must be from 0 to 1, got 2"),
        ({"index": -1}, "index must be from 0 to 1, got -1"),
    ],
)
def test_bad_calls_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        trained().adapt(**{"goals": GOALS, "generator": rollouts(), **change})


def test_a_missing_rule_is_explained_and_can_be_given():
    baseline = trained("pretrained", rule=None)
    with pytest.raises(
        ValueError, match=r"pretrained brings no update rule; pass one, e.g. rule=GradientDescent\(0.1\)"
    ):
        baseline.adapt(GOALS, rollouts())
    rule = GradientDescent(0.02)
    assert torch.equal(baseline.adapt(GOALS, rollouts(), rule=rule), trained(rule=rule).adapt(GOALS, rollouts()))


def refused(path, family=None):
    with pytest.raises(StorageError) as error:
        TrainedPolicy.load(path, family)
    message = str(error.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_missing_damaged_and_other_files_are_refused(path):
    assert "is missing" in refused(path)
    trained().save(path)
    assert "but one for ant_dir is needed" in refused(path, "ant_dir")
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert "damaged" in refused(path)
    path.write_bytes(content[: len(content) // 2])
    assert "damaged" in refused(path)
    save_tensors(path, "another kind 1", {"phi": torch.zeros(1)}, {})
    assert "holds 'another kind 1', but 'trained policy 1' is needed" in refused(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"phi": torch.zeros(2, 5)},
        {"phi": torch.zeros(3, small_policy().n_parameters)},
        {"phi": torch.zeros(small_policy().n_parameters)},
        {"rule": LSTMRule(hidden_size=3)},
        {"policy": GaussianPolicy((2, 9, 2), "tanh")},
        {"view": ObservationView.of(POINT, {}, with_goal=True)},
    ],
    ids=str,
)
def test_parameters_that_do_not_fit_are_refused(changes, path):
    trained(**changes).save(path)
    assert "do not fit 2 seeds of a policy of sizes" in refused(path)


def test_the_header_of_another_version_is_refused(path):
    save_tensors(path, "trained policy 1", {"phi": torch.zeros(1, 1)}, {"family": "point_navigation"})
    assert "it was written by another version" in refused(path)
    save_tensors(path, "trained policy 1", {"phi": torch.zeros(1, 1)}, {})
    assert "holds a policy for None, but one for ant_dir is needed" in refused(path, "ant_dir")


def test_rates_at_test():
    assert at_test(GradientDescent(0.1, True), 0.5) == ScheduledGradientDescent((0.1, 0.05), True)
    learned = MetaSGD(3, 0.1)
    assert at_test(learned, 0.5) is learned


def test_scheduled_rates_in_their_order_the_last_one_repeated():
    rule = ScheduledGradientDescent((0.5, 0.25))
    theta, state, one = torch.tensor([1.0]), rule.initial_state(torch.zeros(1)), torch.ones(1)
    path = []
    for _ in range(4):
        theta, state = rule.step(torch.zeros(0), theta, one, one[0], state)
        path.append(theta.item())
    assert path == [0.5, 0.25, 0.0, -0.25]


@pytest.mark.parametrize("rates", [(), (0.1, 0.0), (0.1, float("nan")), (float("inf"),), (-0.1,)])
def test_impossible_rates_are_refused(rates):
    with pytest.raises(ValueError, match="rates must be positive finite numbers, at least one"):
        ScheduledGradientDescent(rates)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_initial_rates_are_refused(rate):
    with pytest.raises(ValueError, match="rate must be a positive finite number"):
        MetaSGD(3, rate)
    with pytest.raises(ValueError, match="n_parameters must be 1 or more, got 0"):
        MetaSGD(0, 0.1)
