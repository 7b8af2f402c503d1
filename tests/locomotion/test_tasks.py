import math

import pytest
import torch

from metalib.locomotion.bodies import load_body
from metalib.locomotion.families import FAMILIES
from metalib.locomotion.point_navigation import PointNavigation
from metalib.locomotion.simulation import make_simulation

V, A2, F2 = (torch.tensor([value], dtype=torch.float64) for value in (0.7, 2.0, 3.0))


@pytest.mark.parametrize(
    ("name", "goal", "expected"),
    [
        ("cheetah_vel", 1.5, -0.8 - 0.1),
        ("cheetah_vel", 0.2, -0.5 - 0.1),
        ("cheetah_dir", -1.0, -0.7 - 0.1),
        ("ant_vel", 3.0, 1 - 2.3 - 0.01 - 0.0015 + 0.05),
        ("ant_dir", 1.0, 0.7 - 0.01 - 0.0015 + 0.05),
    ],
)
def test_rewards_worked_by_hand(name, goal, expected):
    family = FAMILIES[name]
    contact = F2 if family.body == "ant" else None
    goals = torch.tensor([goal], dtype=torch.float64)
    assert family.reward(V, goals, A2, contact).item() == pytest.approx(expected, abs=1e-12)
    assert torch.equal(V, torch.tensor([0.7], dtype=torch.float64))  # arguments are left as they were


def test_ants_end_outside_their_heights_and_cheetahs_never():
    heights = torch.tensor([0.19, 0.2, 0.6, 1.0, 1.01])
    assert FAMILIES["ant_vel"].unhealthy(heights).tolist() == [True, False, False, False, True]
    assert FAMILIES["cheetah_vel"].unhealthy(heights) is None


def test_a_point_walks_as_far_as_it_is_allowed_and_ends_at_its_goal():
    simulation = make_simulation(PointNavigation(), 2)
    simulation.reset(torch.zeros(2, 0), torch.tensor([[0.2, -0.1], [0.5, 0.5]]))
    outcome = simulation.step(torch.tensor([[3.0, -0.05], [0.02, 0.0]]))
    torch.testing.assert_close(simulation.observe(), torch.tensor([[0.1, -0.05], [0.02, 0.0]]))
    expected = [-(0.1**2 + 0.05**2), -(0.48**2 + 0.5**2)]
    assert outcome.rewards.tolist() == pytest.approx(expected, abs=1e-7)
    assert outcome.ended.tolist() == [False, False]
    assert simulation.step(torch.tensor([[0.095, -0.05], [0.0, 0.0]])).ended.tolist() == [True, False]


@pytest.mark.parametrize(
    ("body", "timing", "message"), [("cat", "paper", "body 'cat'"), ("ant", "slow", "timing 'slow'")]
)
def test_unknown_bodies_and_timings_are_refused(body, timing, message):
    with pytest.raises(ValueError, match=f"unknown {message}; known: "):
        load_body(body, timing)


def test_a_body_that_breaks_down_breaks_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo writes MUJOCO_LOG.TXT
    family = FAMILIES["ant_dir"]
    simulation, twin = (make_simulation(family, 3) for _ in range(2))
    for each in (simulation, twin):
        each.reset(torch.zeros(3, 29), torch.ones(3, 1))
    simulation.positions[1, 7] = math.inf
    action = torch.full((3, 8), 0.3)
    broken, sound = simulation.step(action), twin.step(action)
    assert broken.rewards.isfinite().tolist() == [True, False, True]
    assert torch.equal(broken.rewards[[0, 2]], sound.rewards[[0, 2]])


def test_an_action_that_is_no_number_shows_in_the_reward_and_leaves_no_log(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    simulation = make_simulation(FAMILIES["cheetah_vel"], 2)
    simulation.reset(torch.zeros(2, 18), torch.ones(2, 1))
    action = torch.zeros(2, 6)
    action[1, 3] = math.nan
    assert simulation.step(action).rewards.isfinite().tolist() == [True, False]
    assert not list(tmp_path.iterdir())
