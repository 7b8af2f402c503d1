"""What a policy is shown of an observation."""

import pytest
import torch

from metalib.locomotion.collector import collect
from metalib.locomotion.families import FAMILIES
from metalib.locomotion.policy import GaussianPolicy
from metalib.locomotion.view import ObservationView
from metalib.randomness import generator

CHEETAH, ANT, POINT = (FAMILIES[name] for name in ("cheetah_dir", "ant_vel", "point_navigation"))


def shown(view, observations):
    out = torch.full((*observations.shape[:-1], view.size), 77.0)
    view.show(observations, out)
    return out


def numbered(family, n=2):
    return torch.arange(n * family.observation_size, dtype=torch.float32).view(n, -1)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_by_default_everything_is_shown_as_it_is(family):
    view = ObservationView.of(family, {})
    assert view.size == family.observation_size
    assert torch.equal(shown(view, numbered(family)), numbered(family))


def test_parts_are_scaled_and_hidden():
    view = ObservationView.of(CHEETAH, {"positions": 0.0, "velocities": 0.5, "centre_of_mass": 2.0})
    observations = numbered(CHEETAH)  # 8 positions, 9 velocities, 3 of the centre of mass
    expected = torch.cat([observations[:, 8:17] / 2, observations[:, 17:20] * 2], dim=1)
    assert torch.equal(shown(view, observations), expected)


def test_the_last_part_can_be_hidden():
    view = ObservationView.of(CHEETAH, {"centre_of_mass": 0.0})
    assert torch.equal(shown(view, numbered(CHEETAH)), numbered(CHEETAH)[:, :17])


def test_a_part_in_the_middle_can_be_hidden():
    view = ObservationView.of(ANT, {"contact_forces": 0.0})
    observations = numbered(ANT)
    assert torch.equal(shown(view, observations), torch.cat([observations[:, :29], observations[:, 113:]], dim=1))


def test_the_place_of_the_goal_is_left_alone():
    view = ObservationView.of(CHEETAH, {"positions": 0.0}, with_goal=True)
    out = shown(view, numbered(CHEETAH))
    assert view.size == out.shape[1] == 13
    assert torch.equal(out[:, :12], numbered(CHEETAH)[:, 8:])
    assert out[:, 12].tolist() == [77.0, 77.0]


def test_unknown_parts_and_empty_views_are_refused():
    with pytest.raises(ValueError, match="ant_vel: unknown part of the observation 'forces'; known: positions, velo"):
        ObservationView.of(ANT, {"forces": 1.0})
    for with_goal in (False, True):
        with pytest.raises(ValueError, match="point_navigation: no part of the observation is shown"):
            ObservationView.of(POINT, {"positions": 0.0}, with_goal)


def test_description_survives_storage():
    view = ObservationView.of(CHEETAH, {"positions": 0.0, "velocities": 0.1}, with_goal=True)
    assert ObservationView.from_dict(view.to_dict()) == view


def collected(family, view, goals, rollouts=3, weights=0.0):
    policy = GaussianPolicy((view.size if view else family.observation_size, family.action_size))
    thetas = torch.full((len(goals), policy.n_parameters), weights)
    return collect(family, policy, thetas, goals, rollouts, 8, generator(0, "rollouts"), threads=1, view=view)


@pytest.mark.parametrize("with_goal", [False, True])
def test_rollouts_of_the_same_actions_do_not_depend_on_the_view(with_goal):
    goals = torch.tensor([[1.0], [-1.0]])
    view = ObservationView.of(CHEETAH, {"positions": 0.0, "velocities": 0.5}, with_goal)
    whole, part = collected(CHEETAH, None, goals), collected(CHEETAH, view, goals)
    assert torch.equal(part.actions, whole.actions)
    assert torch.equal(part.rewards, whole.rewards)
    expected = torch.cat([whole.observations[..., 8:17] / 2, whole.observations[..., 17:]], dim=-1)
    assert torch.equal(part.observations[..., :12], expected)
    if with_goal:
        assert torch.equal(part.observations[..., 12], goals[:, None].expand(2, 3, 8))


def test_the_policy_acts_on_what_it_is_shown():
    goals = torch.tensor([[0.4, -0.3], [0.1, 0.2]])
    view = ObservationView.of(POINT, {"positions": 3.0}, with_goal=True)
    policy = GaussianPolicy((4, 2))
    thetas = torch.zeros(2, policy.n_parameters)
    thetas[:, [2, 7]] = 0.05  # both parts of the mean are 0.05 times the goal's
    thetas[:, -2:] = -20.0
    found = collect(POINT, policy, thetas, goals, 2, 3, generator(0, "rollouts"), threads=1, view=view)
    steps = 0.05 * goals[:, None, None].expand(2, 2, 3, 2)
    torch.testing.assert_close(found.actions, steps, rtol=0, atol=1e-7)
    torch.testing.assert_close(found.observations[:, :, 2, :2], 3 * 2 * steps[:, :, 0], rtol=0, atol=1e-6)


def test_every_rollout_can_have_a_goal_of_its_own():
    goals = POINT.draw_goals(generator(0, "goals"), 6).view(2, 3, 2)
    view = ObservationView.of(POINT, {}, with_goal=True)
    together = collected(POINT, view, goals)
    assert torch.equal(together.observations[..., 0, 2:], goals)
    for rollout in range(3):
        alone = collected(POINT, view, goals[:, rollout])
        assert torch.equal(alone.rewards[:, rollout], together.rewards[:, rollout])
    assert not torch.equal(together.rewards[:, 0], together.rewards[:, 1])


def test_goals_of_rollouts_must_be_as_many_and_in_range():
    with pytest.raises(ValueError, match="one goal a rollout is needed, got 4 for 3 rollouts"):
        collected(POINT, None, torch.zeros(2, 4, 2))
    goals = torch.zeros(2, 3, 2)
    goals[1, 2, 0] = 0.6
    with pytest.raises(ValueError, match="point_navigation: the goal .* is not allowed"):
        collected(POINT, None, goals)
