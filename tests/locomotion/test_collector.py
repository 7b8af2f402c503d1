import math

import pytest
import torch

from metalib.locomotion.collector import collect
from metalib.locomotion.families import FAMILIES
from metalib.locomotion.policy import GaussianPolicy
from metalib.locomotion.trajectories import Trajectories
from metalib.randomness import generator

CHEETAH, ANT, POINT = (FAMILIES[name] for name in ("cheetah_vel", "ant_vel", "point_navigation"))


def policy_for(family):
    return GaussianPolicy((family.observation_size, 10, family.action_size))


def problem(family, tasks, log_std=0.0):
    policy = policy_for(family)
    thetas = torch.stack([policy.initial_theta(generator(0, "theta", task), log_std) for task in range(tasks)])
    return family, policy, thetas, family.draw_goals(generator(0, "goals"), tasks)


def run(family, policy, thetas, goals, rollouts=3, horizon=20, **options):
    return collect(family, policy, thetas, goals, rollouts, horizon, generator(0, "rollouts"), **options)


def assert_equal(first, second):
    for name, one, other in zip(Trajectories._fields, first, second, strict=True):
        assert torch.equal(one, other), name


@pytest.mark.parametrize("family", [CHEETAH, ANT, POINT])
def test_same_generator_same_bytes_at_any_number_of_threads(family):
    given = problem(family, 4, log_std=1.0)
    first = run(*given, threads=1, horizon=30)
    assert_equal(run(*given, threads=1, horizon=30), first)
    for threads in (2, 4, 8):
        other = run(*given, threads=threads, horizon=30)
        torch.testing.assert_close(other.rewards, first.rewards, rtol=1e-4, atol=1e-4)  # matrix products by shape
    another = collect(*given, 3, 30, generator(1, "rollouts"))
    assert not torch.equal(another.rewards, first.rewards)


@pytest.mark.parametrize("family", [CHEETAH, ANT])
def test_physics_and_noise_do_not_depend_on_the_grouping_of_tasks(family):
    policy = policy_for(family)
    # No weights: actions are noise alone, so that no rounding of matrix products enters.
    thetas, goals = torch.zeros(5, policy.n_parameters), family.draw_goals(generator(0, "goals"), 5)
    together = run(family, policy, thetas, goals)
    parts = [run(family, policy, thetas[a:b], goals[a:b], first_task=a, threads=2) for a, b in ((0, 1), (1, 4), (4, 5))]
    assert_equal(Trajectories(*(torch.cat(part) for part in zip(*parts, strict=True))), together)
    fewer = run(family, policy, thetas, goals, rollouts=2)
    assert_equal(fewer, Trajectories(*(part[:, :2] for part in together)))


def test_every_rollout_has_its_own_noise():
    together = run(*problem(CHEETAH, 3))
    starts = together.observations[:, :, 0].flatten(0, 1)
    assert len(torch.unique(starts, dim=0)) == 9


def test_each_task_acts_by_its_own_parameters_and_goal():
    family, policy, thetas, goals = problem(CHEETAH, 3)
    before = run(family, policy, thetas, goals)
    changed = thetas.clone()
    changed[1] += 0.1
    after = run(family, policy, changed, goals)
    same = [torch.equal(before.actions[task], after.actions[task]) for task in range(3)]
    assert same == [True, False, True]
    other_goal = goals.clone()
    other_goal[2] = 2.0 - goals[2]
    after = run(family, policy, thetas, other_goal)
    assert torch.equal(after.actions, before.actions)
    assert [torch.equal(before.rewards[task], after.rewards[task]) for task in range(3)] == [True, True, False]


def test_actions_are_the_policy_s_on_the_observations():
    family, policy, thetas, goals = problem(CHEETAH, 2, log_std=-20.0)  # next to no noise
    found = run(family, policy, thetas, goals)
    for task in range(2):
        mean, _ = policy.distribution(thetas[task], found.observations[task])
        torch.testing.assert_close(found.actions[task], mean, rtol=1e-4, atol=1e-5)


def test_ants_that_fall_are_masked_and_their_padding_is_zero():
    found = run(*problem(ANT, 6, log_std=2.0), rollouts=6, horizon=120)
    lengths = found.lengths
    assert found.ended.any()
    assert lengths[found.ended].min() < 120
    assert (lengths[~found.ended] == 120).all()
    times = torch.arange(120)
    assert torch.equal(found.mask, times < lengths[..., None])
    heights = found.observations[..., 2]
    alive = found.mask & (times > 0)
    assert ((heights >= 0.2) & (heights <= 1.0))[alive].all()
    for part in (found.observations, found.actions, found.rewards[..., None]):
        assert not part[~found.mask].any()
    torch.testing.assert_close(found.returns, (found.rewards.double() * found.mask).sum(-1))


def test_an_ant_that_falls_changes_nothing_of_the_others():
    family, policy, thetas, goals = problem(ANT, 2)
    calm = run(family, policy, thetas, goals, horizon=100)
    wild = thetas.clone()
    wild[1, -family.action_size :] = 3.0
    found = run(family, policy, wild, goals, horizon=100)
    assert found.ended[1].any()
    assert_equal(Trajectories(*(part[:1] for part in found)), Trajectories(*(part[:1] for part in calm)))


def test_points_that_arrive_end():
    policy = policy_for(POINT)
    thetas = torch.zeros(1, policy.n_parameters)
    thetas[0, policy.network.n_parameters - 2 : policy.network.n_parameters] = torch.tensor([0.1, 0.05])  # the mean
    thetas[0, -2:] = -20.0
    found = run(POINT, policy, thetas, torch.tensor([[0.4, 0.2]]), rollouts=2)
    assert found.lengths.tolist() == [[4, 4]]
    assert found.ended.all()
    expected = -sum((0.4 - 0.1 * k) ** 2 + (0.2 - 0.05 * k) ** 2 for k in (1, 2, 3, 4))
    assert found.returns[0, 0].item() == pytest.approx(expected, abs=1e-6)


def test_a_policy_that_is_no_number_ends_its_own_rollouts_and_is_counted():
    family, policy, thetas, goals = problem(CHEETAH, 3)
    sound = run(family, policy, thetas, goals)
    thetas[1, 0] = math.nan
    found = run(family, policy, thetas, goals)
    assert found.non_finite.tolist() == [[False] * 3, [True] * 3, [False] * 3]
    assert not found.ended.any()
    assert found.lengths.tolist() == [[20] * 3, [0] * 3, [20] * 3]
    assert all(part.isfinite().all() for part in (found.observations, found.actions, found.rewards))
    assert torch.equal(found.rewards[[0, 2]], sound.rewards[[0, 2]])


def test_a_state_that_breaks_down_ends_that_rollout_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo writes MUJOCO_LOG.TXT
    given = problem(CHEETAH, 2)
    sound = run(*given, threads=1)

    def break_one(time, simulation):
        if time == 7:
            simulation.positions[4, 3] = math.nan  # task 1, rollout 1

    found = run(*given, watch=break_one)
    assert found.non_finite.sum() == 1
    assert found.non_finite[1, 1]
    assert found.lengths.tolist() == [[20, 20, 20], [20, 7, 20]]
    assert torch.equal(found.rewards[0], sound.rewards[0])
    assert torch.equal(found.rewards[1, 1, :7], sound.rewards[1, 1, :7])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"horizon": 0}, "horizon must be 1 or more, got 0"),
        ({"rollouts": 0}, "rollouts must be 1 or more, got 0"),
        ({"goals": torch.tensor([[2.5], [1.0]])}, "goal 2.5 is not allowed; allowed: from 0 to 2 m/s"),
        ({"goals": torch.ones(3, 1)}, "got 2 thetas and 3 goals"),
        ({"threads": 0}, "threads must be 1 or more, got 0"),
        ({"thetas": torch.zeros(2, 3)}, r"thetas must be of shape \[tasks, "),
        ({"thetas": torch.zeros(2, 282).double()}, r"and float32 .* got \[2, 282\] of torch.float64"),
        ({"policy": GaussianPolicy((125, 8))}, "shows 20 observations and has 6 actions"),
        ({"timing": "fast"}, "unknown timing 'fast'; known: paper, gymnasium"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    given = dict(zip(("family", "policy", "thetas", "goals"), problem(CHEETAH, 2), strict=True))
    with pytest.raises(ValueError, match=message):
        run(**{**given, **change})


def test_parameters_that_are_being_learned_may_act():
    family, policy, thetas, goals = problem(POINT, 2)
    expected = run(family, policy, thetas, goals)
    found = run(family, policy, thetas.requires_grad_(), goals)
    assert_equal(found, expected)
    (found.rewards * policy.log_probability(thetas[0], found.observations, found.actions)).sum().backward()
    assert thetas.grad is not None
    assert thetas.grad[0].any()


def test_the_number_of_torch_threads_is_left_as_it_was():
    torch.set_num_threads(2)
    run(*problem(POINT, 2))
    assert torch.get_num_threads() == 2
