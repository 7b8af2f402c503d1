"""What holds for every locomotion family."""

import pytest
import torch

from metalib.locomotion.families import FAMILIES, family_named
from metalib.locomotion.simulation import make_simulation
from metalib.randomness import generator


@pytest.fixture(params=FAMILIES, name="family")
def _family(request):
    return FAMILIES[request.param]


def started(family, n, threads=1, seed=0):
    simulation = make_simulation(family, n, threads=threads)
    numbers = generator(seed, "start")
    simulation.reset(torch.randn(n, family.start_noise_size, generator=numbers), family.draw_goals(numbers, n))
    return simulation


def actions(family, steps, n):
    return torch.randn(steps, n, family.action_size, generator=generator(0, "actions")) * family.action_bound


def test_drawn_goals_are_allowed_and_cover_the_range(family):
    goals = family.draw_goals(generator(0, "goals"), 2000)
    family.check_goals(goals)
    low, high = (goals.min(dim=0).values, goals.max(dim=0).values)
    low_wanted, high_wanted = getattr(family, "goal_range", (-0.5, 0.5))
    torch.testing.assert_close(low, torch.full_like(low, low_wanted), rtol=0, atol=0.01)
    torch.testing.assert_close(high, torch.full_like(high, high_wanted), rtol=0, atol=0.01)


def test_same_generator_key_same_goals(family):
    first, second = (family.draw_goals(generator(1, "goals"), 5) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("wrong", [-7.0, 7.0, float("nan")])
def test_goals_outside_the_range_are_refused(family, wrong):
    goals = family.draw_goals(generator(0, "goals"), 3)
    goals[1] = wrong
    with pytest.raises(ValueError, match=f"{family.name}: the goal .* is not allowed; allowed: "):
        family.check_goals(goals)


@pytest.mark.parametrize("shape", [(3,), (3, 4), (0, 1)])
def test_goals_of_another_shape_are_refused(family, shape):
    with pytest.raises(ValueError, match=r"goals must be of shape \[tasks, "):
        family.check_goals(torch.ones(shape))


def test_observations_have_the_promised_size(family):
    simulation = started(family, 3)
    assert simulation.observe().shape == (3, family.observation_size)
    assert simulation.observe().dtype == torch.float32


def test_a_body_does_not_depend_on_the_others_nor_on_threads(family):
    taken = actions(family, 40, 33)

    def run(rows, threads):
        simulation = make_simulation(family, len(rows), threads=threads)
        numbers = generator(0, "start")
        noise = torch.randn(33, family.start_noise_size, generator=numbers)
        simulation.reset(noise[rows], family.draw_goals(numbers, 33)[rows])
        seen = []
        for action in taken:
            rewards = simulation.step(action[rows]).rewards
            seen.append(torch.cat([simulation.positions, simulation.observe(), rewards[:, None]], dim=1))
        return torch.stack(seen)

    everybody = list(range(33))
    together = run(everybody, 1)
    assert torch.equal(run(everybody, 2), together)
    assert torch.equal(run(everybody, 4), together)
    for rows in ([0], [32], [5, 7, 6], everybody[:17]):
        assert torch.equal(run(rows, 1), together[:, rows])


def test_bodies_that_are_not_stepped_stand_still(family):
    simulation = started(family, 4)
    before = simulation.positions.clone()
    simulation.step(actions(family, 1, 4)[0], torch.tensor([1, 3]))
    moved = (simulation.positions != before).any(dim=1)
    assert moved.tolist() == [False, True, False, True]


def test_a_reset_concerns_the_named_bodies_alone(family):
    simulation, twin = started(family, 3), started(family, 3)
    taken = actions(family, 21, 3)
    for action in taken[:20]:
        simulation.step(action)
        twin.step(action)
    goals = family.draw_goals(generator(9, "goal"), 1)
    simulation.reset(torch.zeros(1, family.start_noise_size), goals, torch.tensor([1]))
    assert torch.equal(simulation.positions[[0, 2]], twin.positions[[0, 2]])
    rewards, expected = simulation.step(taken[20]).rewards, twin.step(taken[20]).rewards
    assert torch.equal(rewards[[0, 2]], expected[[0, 2]])
    anew = make_simulation(family, 1)  # nothing of the former episode is left, the solver's warm start included
    anew.reset(torch.zeros(1, family.start_noise_size), goals)
    assert torch.equal(anew.step(taken[20][1:2]).rewards, rewards[1:2])


@pytest.mark.parametrize("what", [{"n_bodies": 0}, {"n_bodies": 1, "threads": 0}])
def test_no_bodies_or_threads_are_refused(family, what):
    with pytest.raises(ValueError, match="must be 1 or more, got 0"):
        make_simulation(family, **what)


def test_actions_of_another_shape_are_refused(family):
    simulation = started(family, 3)
    for shape in ((family.action_size,), (1, family.action_size), (3, family.action_size + 1)):
        with pytest.raises(ValueError, match=rf"actions must be of shape \[3, {family.action_size}\], got"):
            simulation.step(torch.zeros(shape))


def test_unknown_families_are_refused():
    with pytest.raises(
        ValueError, match="unknown task family 'ant_velo'; known: cheetah_vel, .*; did you mean ant_vel"
    ):
        family_named("ant_velo")
