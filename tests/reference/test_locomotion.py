"""The batched simulation against Gymnasium's environments, and against plain MuJoCo step by step."""

from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch

from metalib.locomotion.bodies import load_body
from metalib.locomotion.families import FAMILIES
from metalib.locomotion.physics import mujoco
from metalib.locomotion.simulation import make_simulation
from metalib.randomness import generator

ASSETS = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets"


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo writes MUJOCO_LOG.TXT when it loads the files as they are


def held_actions(seed, steps, size):
    """Random actions, each held for five steps, which throw a body about; exact in float32."""
    drawn = np.random.default_rng(seed).uniform(-1.2, 1.2, (steps // 5 + 1, size)).astype(np.float32)
    return drawn.repeat(5, axis=0)[:steps]


@pytest.mark.parametrize(("family", "env_id"), [("cheetah_vel", "HalfCheetah-v5"), ("ant_dir", "Ant-v5")])
def test_states_equal_gymnasium_s_bit_for_bit(family, env_id):
    env = gymnasium.make(env_id).unwrapped
    env.reset(seed=3)
    simulation = make_simulation(FAMILIES[family], 1, "gymnasium")
    simulation.set_state(torch.from_numpy(env.data.qpos.copy())[None], torch.from_numpy(env.data.qvel.copy())[None])
    heights = []
    for action in held_actions(4, 300, env.model.nu):
        env.step(action.clip(-1, 1))
        simulation.step(torch.from_numpy(action)[None])
        assert np.array_equal(simulation.positions[0].numpy(), env.data.qpos)
        assert np.array_equal(simulation._qvel[0].numpy(), env.data.qvel)
        heights.append(env.data.qpos[2])
    if family == "ant_dir":
        assert max(heights) > 1 or min(heights) < 0.2  # it fell, and went on being equal


def original(body):
    """The body under paper timing, made from the file's arrays instead of through MjSpec."""
    model = mujoco.MjModel.from_xml_path(str(ASSETS / {"cheetah": "half_cheetah.xml", "ant": "ant.xml"}[body]))
    model.opt.timestep = {"cheetah": 0.01, "ant": 0.02}[body]
    if body == "ant":
        model.geom_solimp[:] = (0.8, 0.8, 0.01, 0.5, 2.0)
    return model


def reward_by_hand(name, data, goal, action):
    """The released code's formulas, term by term (cbfinn/maml_rl)."""
    velocity = data.subtree_linvel[1, 0]
    contact = 0.5 * 1e-3 * np.sum(np.clip(data.cfrc_ext, -1, 1) ** 2)
    match name:
        case "cheetah_vel":
            return -abs(velocity - goal) - 1e-1 * 0.5 * np.sum(action**2)
        case "cheetah_dir":
            return goal * velocity - 1e-1 * 0.5 * np.sum(action**2)
        case "ant_vel":
            return -abs(velocity - goal) + 1.0 - 0.5 * 1e-2 * np.sum(action**2) - contact + 0.05
        case "ant_dir":
            return goal * velocity - 0.5 * 1e-2 * np.sum(action**2) - contact + 0.05


def observation_by_hand(name, data):
    if name.startswith("cheetah"):
        return np.concatenate([data.qpos[1:], data.qvel, data.subtree_com[1]])
    forces = np.clip(data.cfrc_ext, -1, 1).ravel()
    return np.concatenate([data.qpos, data.qvel, forces, data.xmat[1], data.subtree_com[1]])


@pytest.mark.parametrize("name", ["cheetah_vel", "cheetah_dir", "ant_vel", "ant_dir"])
def test_everything_belongs_to_the_state_after_the_step(name):
    family = FAMILIES[name]
    model = original(family.body)
    data, fresh = mujoco.MjData(model), mujoco.MjData(model)
    simulation = make_simulation(family, 1)
    numbers = generator(0, "start")
    goals = family.draw_goals(numbers, 1)
    noise = torch.randn(1, family.start_noise_size, generator=numbers)
    simulation.reset(noise, goals)
    data.qpos[:] = load_body(family.body).start + 0.01 * noise[0, : model.nq].double().numpy()
    data.qvel[:] = 0.1 * noise[0, model.nq :].double().numpy()
    touched = 0.0
    for action in held_actions(5, 150, model.nu):
        clipped = action.clip(-1, 1).astype(np.float64)
        data.ctrl[:] = clipped
        mujoco.mj_step(model, data)
        mujoco.mj_copyData(fresh, model, data)
        mujoco.mj_forward(model, fresh)
        mujoco.mj_rnePostConstraint(model, fresh)
        mujoco.mj_subtreeVel(model, fresh)
        outcome = simulation.step(torch.from_numpy(action)[None])
        assert np.array_equal(simulation.positions[0].numpy(), data.qpos)
        expected = reward_by_hand(name, fresh, float(goals[0, 0]), clipped)
        assert outcome.rewards[0].item() == pytest.approx(expected, abs=1e-7)
        seen = simulation.observe()[0].numpy()
        np.testing.assert_allclose(seen, observation_by_hand(name, fresh).astype(np.float32), rtol=1e-6, atol=1e-9)
        assert seen.shape == (family.observation_size,)
        touched += np.abs(fresh.cfrc_ext).sum()
    assert touched > 100  # forces were there to be compared


def test_velocities_before_the_last_substep_would_be_seen_to_differ():
    simulation = make_simulation(FAMILIES["cheetah_vel"], 1)
    model = simulation.body.model
    data = mujoco.MjData(model)
    simulation.reset(torch.zeros(1, 18), torch.ones(1, 1))
    worst = 0.0
    for action in held_actions(5, 100, 6):
        data.ctrl[:] = action.clip(-1, 1)
        mujoco.mj_step(model, data)
        mujoco.mj_subtreeVel(model, data)
        simulation.step(torch.from_numpy(action)[None])
        worst = max(worst, abs(data.subtree_linvel[1, 0] - simulation.velocity[0].item()))
    assert worst > 0.05


def test_the_original_ant_starts_crouched_and_stands():
    body = load_body("ant")
    assert body.start.tolist() == [0, 0, 0.55, 1, 0, 0, 0, 0, 1, 0, -1, 0, -1, 0, 1]
    assert load_body("ant", "gymnasium").start[2] == 0.75
    simulation = make_simulation(FAMILIES["ant_dir"], 1)
    simulation.reset(torch.zeros(1, 29), torch.ones(1, 1))
    for _ in range(200):
        outcome = simulation.step(torch.zeros(1, 8))
        assert not outcome.ended.any()
    assert simulation.positions[0, 2] > 0.4


@pytest.mark.parametrize(
    ("body", "timing", "seconds"),
    [("cheetah", "paper", 0.01), ("ant", "paper", 0.02), ("cheetah", "gymnasium", 0.05), ("ant", "gymnasium", 0.05)],
)
def test_an_action_lasts_as_long_as_in_the_source(body, timing, seconds):
    assert load_body(body, timing).seconds == pytest.approx(seconds)


def test_bodies_load_without_a_warning(tmp_path, capfd):
    load_body.cache_clear()
    load_body("cheetah")
    assert capfd.readouterr().err == ""
    assert not list(tmp_path.iterdir())
    assert load_body("cheetah").model.body_subtreemass[0] == pytest.approx(14)
