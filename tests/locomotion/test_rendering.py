import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from metalib.locomotion import physics, rendering
from metalib.locomotion.bodies import load_body
from metalib.locomotion.families import FAMILIES
from metalib.locomotion.policy import GaussianPolicy
from metalib.locomotion.recording import film, record, speeds_until_end
from metalib.locomotion.rendering import RenderingError, save_animation, side_by_side
from metalib.randomness import generator
from tests.locomotion.test_gymnasium_envs import can_draw

ROOT = Path(__file__).resolve().parents[2]


def recorded(name, tasks, horizon, log_std=-1.0):
    family = FAMILIES[name]
    policy = GaussianPolicy((family.observation_size, 10, family.action_size))
    theta = policy.initial_theta(generator(0, "theta"), log_std)
    goals = family.draw_goals(generator(0, "goals"), tasks)
    return record(family, policy, theta.expand(tasks, -1), goals, horizon, generator(0, "rollouts"))


def test_a_recording_holds_what_was_observed():
    recording = recorded("cheetah_vel", 2, 30)
    assert recording.positions.shape == (2, 31, 9)
    assert recording.seconds == pytest.approx(0.01)
    seen = recording.trajectories.observations[:, 0, :, :8]
    torch.testing.assert_close(recording.positions[:, :30, 1:].float(), seen)
    rewards = -(recording.velocity[:, 1:] - recording.goals).abs()
    rewards -= 0.05 * recording.trajectories.actions[:, 0].clamp(-1, 1).square().sum(-1)
    torch.testing.assert_close(rewards.float(), recording.trajectories.rewards[:, 0], rtol=1e-4, atol=1e-5)


def test_a_recording_stands_on_after_all_have_ended():
    recording = recorded("point_navigation", 1, 50)
    goals = torch.tensor([[0.0, 0.0]])
    arrived = record(
        FAMILIES["point_navigation"],
        GaussianPolicy((2, 2)),
        torch.tensor([[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -20.0, -20.0]]),
        goals,
        50,
        generator(0, "rollouts"),
    )
    assert arrived.trajectories.lengths.item() == 1
    assert arrived.positions.shape == recording.positions.shape == (1, 51, 2)


@pytest.mark.skipif(not can_draw(), reason="no display, and neither EGL nor OSMesa")
@pytest.mark.parametrize("suffix", ["gif", "webp"])
def test_a_film_of_four_seconds_is_small_and_moves(tmp_path, suffix):
    recording = recorded("ant_dir", 3, 40)
    path = tmp_path / f"film.{suffix}"
    film(recording, path, ["random", "before", "after one step"])
    with Image.open(path) as image:
        assert image.n_frames == 11  # 0.8 s
        assert image.size == (960, 240 + 17 * 3 + 6)
        frames = []
        for index in (0, 10):
            image.seek(index)
            frames.append(np.asarray(image.convert("RGB")).astype(float))
        assert np.abs(frames[0] - frames[1]).mean() > 1
    assert path.stat().st_size / 11 * 51 < 1_500_000


def test_films_can_be_made_to_fit(tmp_path):
    numbers = np.random.default_rng(0)
    images = [Image.fromarray(numbers.integers(0, 256, (60, 80, 3), dtype=np.uint8)) for _ in range(5)]
    save_animation(tmp_path / "free.webp", images, 10)
    free = (tmp_path / "free.webp").stat().st_size
    save_animation(tmp_path / "small.webp", images, 10, largest=free // 2)
    assert free // 6 < (tmp_path / "small.webp").stat().st_size <= free // 2
    save_animation(tmp_path / "same.webp", images, 10, largest=free)
    assert (tmp_path / "same.webp").read_bytes() == (tmp_path / "free.webp").read_bytes()
    for name in ("film.webp", "film.gif"):
        with pytest.raises(RenderingError, match="bytes and 100 are allowed; make it shorter"):
            save_animation(tmp_path / name, images, 10, largest=100)
        assert not (tmp_path / name).exists()


@pytest.mark.skipif(not can_draw(), reason="no display, and neither EGL nor OSMesa")
def test_two_rows_of_ants_fit_a_page(tmp_path):
    path = tmp_path / "film.webp"
    size = {"columns": 3, "width": 200, "frame_seconds": 0.12}
    film(recorded("ant_dir", 6, 60, 0.0), path, ["random", "before", "after"] * 2, **size, largest=75_000)
    with Image.open(path) as image:
        assert image.n_frames == 11  # 1.2 s
        assert image.size == (600, 2 * (150 + 17 * 3 + 6))


def test_speeds_end_with_their_rollout():
    recording = recorded("point_navigation", 2, 4)
    mask = torch.tensor([[[True, True, False, False]], [[True] * 4]])
    ended = recording._replace(
        velocity=torch.arange(10.0).reshape(2, 5), trajectories=recording.trajectories._replace(mask=mask)
    )
    expected = torch.tensor([[0.0, 1.0, 2.0, torch.nan, torch.nan], [5.0, 6.0, 7.0, 8.0, 9.0]])
    torch.testing.assert_close(speeds_until_end(ended), expected, equal_nan=True)


def test_captions_stand_above_their_pictures():
    red, blue = (np.full((30, 90, 3), colour, dtype=np.uint8) for colour in ((255, 0, 0), (0, 0, 255)))
    image = np.asarray(side_by_side([red, blue], ["one", "two\nlines"]))
    assert image.shape == (30 + 17 * 2 + 6, 180, 3)
    assert (image[-30:, :90] == (255, 0, 0)).all()
    assert (image[-30:, 90:] == (0, 0, 255)).all()
    assert (image[:40, :90] < 100).any()
    assert (image[:40, 90:] < 100).any()
    below = np.asarray(side_by_side([red, blue], ["one", "two\nlines"], columns=1))
    assert below.shape == (2 * (30 + 17 * 2 + 6), 90, 3)
    assert (below[-30:] == (0, 0, 255)).all()
    assert (below[40:70] == (255, 0, 0)).all()


def test_films_of_another_kind_or_without_pictures_are_refused(tmp_path):
    image = Image.new("RGB", (4, 4))
    with pytest.raises(RenderingError, match="must end in .gif or .webp"):
        save_animation(tmp_path / "film.mp4", [image], 10)
    with pytest.raises(RenderingError, match="there is no image"):
        save_animation(tmp_path / "film.gif", [], 10)
    with pytest.raises(ValueError, match="one title a rollout is needed, got 1 for 2"):
        film(recorded("point_navigation", 2, 3), tmp_path / "film.gif", ["alone"])


def choice(monkeypatch, libraries, **environment):
    for name in ("MUJOCO_GL", "DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr("ctypes.util.find_library", lambda name: name if name in libraries else None)
    return physics.choose_renderer(), os.environ.get("MUJOCO_GL")


def test_egl_is_preferred_osmesa_second_and_a_user_s_choice_stands(monkeypatch):
    assert choice(monkeypatch, {"EGL", "OSMesa"}) == ("egl", "egl")
    assert choice(monkeypatch, {"OSMesa"}) == ("osmesa", "osmesa")
    assert choice(monkeypatch, {"EGL"}, MUJOCO_GL="osmesa") == ("osmesa", "osmesa")
    assert choice(monkeypatch, {"EGL"}, DISPLAY=":0") == ("glfw", None)
    assert choice(monkeypatch, set()) == ("", None)


def test_where_nothing_can_draw_one_line_says_so(monkeypatch):
    monkeypatch.setattr(rendering, "RENDERER", "")
    with pytest.raises(RenderingError, match="neither EGL nor OSMesa is installed; install libegl1 or libosmesa6"):
        rendering.BodyRenderer(load_body("ant"))


@pytest.mark.parametrize("chosen", ["glfw", "osmesa", "disable", "nonsense"])
def test_a_choice_that_does_not_work_is_an_error_and_no_abort(chosen):
    program = (
        "from metalib.errors import MetalibError\n"
        "try:\n"
        "    from metalib.locomotion.rendering import BodyRenderer\n"
        "    from metalib.locomotion.bodies import load_body\n"
        "    BodyRenderer(load_body('ant')).close()\n"
        "except MetalibError as error:\n"
        "    print('refused:', error)\n"
        "else:\n"
        "    print('drawn')\n"
    )
    environment = {key: value for key, value in os.environ.items() if key not in ("DISPLAY", "PYOPENGL_PLATFORM")}
    environment |= {"MUJOCO_GL": chosen, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.startswith(("refused:", "drawn"))
    if chosen == "nonsense":
        assert "MUJOCO_GL=nonsense" in done.stdout
