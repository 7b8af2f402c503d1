import math

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from metalib.locomotion.gymnasium_envs import IDS
from metalib.locomotion.rendering import BodyRenderer, RenderingError


def can_draw():
    from metalib.locomotion.bodies import load_body

    try:
        BodyRenderer(load_body("ant")).close()
    except RenderingError:
        return False
    return True


@pytest.fixture(params=IDS, name="env_id")
def _env_id(request):
    return request.param


@pytest.mark.parametrize("timing", ["paper", "gymnasium"])
def test_gymnasium_s_checker_is_content(env_id, timing):
    check_env(gymnasium.make(env_id, timing=timing).unwrapped, skip_render_check=True)


def agree(ours, theirs):
    """Compare two ``infos``, nested ones and arrays of arrays included."""
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        if isinstance(value, dict):
            agree(ours[key], value)
        elif value.dtype == object:
            for one, other in zip(ours[key], value, strict=True):
                assert (one is None) == (other is None)
                assert one is None or np.array_equal(one, other)
        else:
            assert np.array_equal(ours[key], value), key
            assert ours[key].dtype == value.dtype


@pytest.mark.parametrize("mode", AutoresetMode)
def test_the_vector_form_is_the_single_form_step_by_step(env_id, mode):
    common = {"num_envs": 3, "max_episode_steps": 7, "goal": None}
    vector = gymnasium.make_vec(env_id, autoreset_mode=mode, **common)
    singles = gymnasium.make_vec(env_id, vectorization_mode="sync", vector_kwargs={"autoreset_mode": mode}, **common)
    for ours, theirs in zip(vector.reset(seed=5), singles.reset(seed=5), strict=True):
        np.testing.assert_equal(ours, theirs)
    numbers = np.random.default_rng(0)
    ends = 0
    for _ in range(25):
        actions = numbers.uniform(-1.2, 1.2, vector.action_space.shape).astype(np.float32)
        (*ours, our_infos), (*theirs, their_infos) = vector.step(actions), singles.step(actions)
        for one, other in zip(ours, theirs, strict=True):
            assert np.array_equal(one, other)
            assert one.dtype == other.dtype
        agree(our_infos, their_infos)
        over = ours[2] | ours[3]
        ends += over.sum()
        if mode is AutoresetMode.DISABLED and over.any():
            first, second = (each.reset(options={"reset_mask": over}) for each in (vector, singles))
            assert np.array_equal(first[0], second[0])
            agree(first[1], second[1])
    assert ends >= 6


def test_ants_that_fall_terminate_in_both_forms():
    vector = gymnasium.make_vec("metalib/AntDir-v0", num_envs=8, goal=1.0, autoreset_mode="SameStep")
    vector.reset(seed=0)
    numbers = np.random.default_rng(0)
    fallen = 0
    for _ in range(120):
        actions = np.sign(numbers.uniform(-1, 1, (8, 8))).astype(np.float32)
        _, _, terminations, truncations, infos = vector.step(actions)
        assert not truncations.any()
        for index in np.flatnonzero(terminations):
            assert not 0.2 <= infos["final_obs"][index][2] <= 1.0
        fallen += terminations.sum()
    assert fallen


def test_what_is_returned_is_not_changed_later():
    vector = gymnasium.make_vec("metalib/CheetahVel-v0", num_envs=2)
    first = vector.reset(seed=0)[0]
    kept = first.copy()
    _, rewards, *_, infos = vector.step(np.ones((2, 6), dtype=np.float32))
    kept_rewards, kept_velocity = rewards.copy(), infos["velocity"].copy()
    vector.step(-np.ones((2, 6), dtype=np.float32))
    assert np.array_equal(first, kept)
    assert np.array_equal(rewards, kept_rewards)
    assert np.array_equal(infos["velocity"], kept_velocity)


def test_goals_are_told_and_fixed_ones_stay():
    env = gymnasium.make("metalib/CheetahVel-v0", goal=1.25)
    for _ in range(2):
        assert env.reset()[1]["goal"] == 1.25
    drawn = gymnasium.make("metalib/CheetahVel-v0")
    goals = {drawn.reset(seed=0)[1]["goal"]} | {drawn.reset()[1]["goal"] for _ in range(3)}
    assert len(goals) == 4
    each = gymnasium.make_vec("metalib/AntDir-v0", num_envs=2, goal=[-1.0, 1.0])
    assert each.reset(seed=0)[1]["goal"].tolist() == [-1.0, 1.0]
    point = gymnasium.make("metalib/PointNavigation-v0", goal=[0.25, -0.5])
    assert point.reset()[1]["goal"].tolist() == [0.25, -0.5]


def test_the_horizon_is_the_paper_s_unless_told():
    assert gymnasium.make("metalib/AntVel-v0").spec.max_episode_steps == 200
    assert gymnasium.make("metalib/PointNavigation-v0").spec.max_episode_steps == 100
    env = gymnasium.make("metalib/CheetahDir-v0", goal=1.0, timing="gymnasium", max_episode_steps=3)
    env.reset(seed=0)
    assert [env.step(env.action_space.sample())[3] for _ in range(3)] == [False, False, True]
    assert env.metadata["render_fps"] == 20


def test_a_simulation_that_breaks_down_terminates_with_a_finite_answer():
    env = gymnasium.make("metalib/CheetahVel-v0", disable_env_checker=True)
    env.reset(seed=0)
    observation, reward, terminated, _, info = env.step(np.full(6, math.nan, dtype=np.float32))
    assert terminated
    assert info["non_finite"]
    assert reward == 0.0
    assert np.isfinite(observation).all()
    assert not env.reset()[1]["non_finite"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"goal": 2.5}, "goal 2.5 is not allowed; allowed: from 0 to 2 m/s"),
        ({"goal": [1.0, 1.0, 1.0]}, "one goal, or one for each of 2 bodies, got 3"),
        ({"timing": "fast"}, "unknown timing 'fast'; known: paper, gymnasium"),
        ({"render_mode": "ascii"}, "unknown render mode 'ascii'; known: rgb_array, or None"),
        ({"max_episode_steps": 0}, "max_episode_steps must be 1 or more, got 0"),
        ({"family": "cat"}, "unknown task family 'cat'"),
    ],
)
def test_bad_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        gymnasium.make_vec("metalib/CheetahVel-v0", num_envs=2, **options)


def test_bad_calls_are_refused():
    vector = gymnasium.make_vec("metalib/CheetahVel-v0", num_envs=2, max_episode_steps=1, autoreset_mode="Disabled")
    with pytest.raises(ValueError, match="reset the environments before the first step"):
        vector.step(np.zeros((2, 6)))
    vector.reset(seed=0)
    with pytest.raises(ValueError, match=r"actions must be of shape \(2, 6\), got \(6,\)"):
        vector.step(np.zeros(6))
    vector.step(np.zeros((2, 6)))
    with pytest.raises(ValueError, match="2 episodes are over; reset them"):
        vector.step(np.zeros((2, 6)))
    with pytest.raises(ValueError, match="reset_mask must be a NumPy array of 2 booleans"):
        vector.reset(options={"reset_mask": [True, False]})
    with pytest.raises(ValueError, match="one seed a body is needed, got 3 for 2"):
        vector.reset(seed=[1, 2, 3])
    single = gymnasium.make("metalib/AntDir-v0").unwrapped
    single.reset(seed=0)
    with pytest.raises(ValueError, match=r"actions must be of shape \(8,\), got \(6,\)"):
        single.step(np.zeros(6))


def test_seeds_of_every_integer_type_are_heard():
    vector = gymnasium.make_vec("metalib/CheetahVel-v0", num_envs=2)

    def goals(seed):
        return vector.reset(seed=seed)[1]["goal"].tolist()

    assert goals(np.int64(5)) == goals(5)
    assert goals((1, 7)) == goals(np.array([1, 7])) == goals([1, 7])
    first, _ = goals([1, 7])
    assert [first, goals([1, None])[0]] == [first, first]
    with pytest.raises(TypeError, match="'float' object cannot be interpreted as an integer"):
        goals(0.5)


@pytest.mark.skipif(not can_draw(), reason="no display, and neither EGL nor OSMesa")
def test_pictures_show_the_body_move():
    env = gymnasium.make("metalib/AntDir-v0", render_mode="rgb_array", goal=1.0)
    env.reset(seed=0)
    before = env.render()
    for _ in range(5):
        env.step(np.ones(8, dtype=np.float32))
    after = env.render()
    assert before.shape == after.shape == (240, 320, 3)
    assert before.std() > 10
    assert not np.array_equal(before, after)
    env.close()
    vector = gymnasium.make_vec("metalib/CheetahVel-v0", num_envs=2, render_mode="rgb_array")
    vector.reset(seed=0)
    assert len(vector.render()) == 2
    vector.close()


def test_a_point_is_drawn_without_opengl():
    env = gymnasium.make("metalib/PointNavigation-v0", render_mode="rgb_array")
    env.reset(seed=0)
    env.step(np.array([0.1, 0.1], dtype=np.float32))
    assert env.render().shape == (240, 240, 3)
