"""Rollouts with their joint positions and speeds kept, and films of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from metalib.locomotion.bodies import load_body
from metalib.locomotion.collector import collect
from metalib.locomotion.families import Family
from metalib.locomotion.point_navigation import PointNavigation
from metalib.locomotion.policy import GaussianPolicy
from metalib.locomotion.rendering import BodyRenderer, Frame, point_frame, save_animation, side_by_side
from metalib.locomotion.simulation import Simulation
from metalib.locomotion.trajectories import Trajectories
from metalib.locomotion.view import ObservationView


class Recording(NamedTuple):
    """One rollout a task, with what :class:`Trajectories` does not keep.

    Args:
        family: of the tasks.
        timing: of the bodies.
        goals: ``[task, goal_size]``.
        trajectories: of one rollout a task.
        positions: joint positions before each action and at the end, ``[task, time + 1, nq]``; the last one stands on
            after a rollout's end.
        velocity: x-velocity of the centre of mass, m/s, ``[task, time + 1]``.
        seconds: the time that one action lasts.
    """

    family: Family
    timing: str
    goals: Tensor
    trajectories: Trajectories
    positions: Tensor
    velocity: Tensor
    seconds: float


def record(
    family: Family,
    policy: GaussianPolicy,
    thetas: Tensor,
    goals: Tensor,
    horizon: int,
    generator: torch.Generator,
    timing: str = "paper",
    view: ObservationView | None = None,
) -> Recording:
    """Return one rollout of each task as :func:`metalib.locomotion.collector.collect` makes it, with its positions."""
    positions: list[Tensor] = []
    velocity: list[Tensor] = []
    seconds = 0.0

    def watch(time: int, simulation: Simulation) -> None:
        nonlocal seconds
        seconds = simulation.seconds
        positions.append(simulation.positions.clone())
        velocity.append(simulation.velocity.clone())

    trajectories = collect(family, policy, thetas, goals, 1, horizon, generator, timing=timing, view=view, watch=watch)
    missing = horizon + 1 - len(positions)  # when all rollouts end before the horizon
    positions += positions[-1:] * missing
    velocity += velocity[-1:] * missing
    return Recording(family, timing, goals, trajectories, torch.stack(positions, 1), torch.stack(velocity, 1), seconds)


def speeds_until_end(recording: Recording) -> Tensor:
    """Return the velocities in m/s, NaN after a rollout's end, ``[task, time + 1]``."""
    times = torch.arange(recording.velocity.shape[1])
    ran = times <= recording.trajectories.lengths  # [task, 1] against time: one rollout a task
    return recording.velocity.where(ran, torch.nan)


def film(
    recording: Recording,
    path: Path,
    titles: Sequence[str],
    longest: float = 4.0,
    width: int = 320,
    columns: int | None = None,
    frame_seconds: float = 0.08,
    largest: int | None = None,
) -> None:
    """Write a film of the recorded rollouts beside each other, with goal, speed and return in the frame.

    With the defaults a film of three bodies has about 1 MB for 4 s. Six ants (``columns=3, width=200,
    frame_seconds=0.12``) fit ``largest=250_000``; narrower pictures have no room for their captions.

    Args:
        recording: what to show.
        path: ending in .gif or .webp.
        titles: a first line for each rollout.
        longest: of the film, in seconds (of the body's time).
        width: of each picture, in pixels.
        columns: rollouts a row; all of them unless told.
        frame_seconds: between two pictures (of the body's time).
        largest: bytes that the film may have; see :func:`metalib.locomotion.rendering.save_animation`.

    Raises:
        RenderingError: nothing here can draw, the name's ending is another, or no quality fits ``largest``.
        ValueError: not one title a rollout.
    """
    if len(titles) != len(recording.goals):
        raise ValueError(f"one title a rollout is needed, got {len(titles)} for {len(recording.goals)} rollouts")
    stride = max(1, round(frame_seconds / recording.seconds))
    rate = 1 / (stride * recording.seconds)
    steps = min(recording.positions.shape[1] - 1, round(longest * rate) * stride)
    images = [
        side_by_side(frames, [_caption(recording, task, time, title) for task, title in enumerate(titles)], columns)
        for time, frames in _pictures(recording, range(0, steps + 1, stride), width)
    ]
    save_animation(path, images, rate, largest)


def _pictures(recording: Recording, times: range, width: int) -> list[tuple[int, list[Frame]]]:
    """Return the frames ``[task]`` of every time."""
    positions, goals = recording.positions.numpy(), recording.goals.double().numpy()
    tasks = range(len(goals))
    if isinstance(recording.family, PointNavigation):
        return [(t, [point_frame(positions[task, : t + 1], goals[task], width) for task in tasks]) for t in times]
    renderer = BodyRenderer(load_body(recording.family.body, recording.timing), width, width * 3 // 4)
    try:
        return [(t, [renderer.frame(positions[task, t]) for task in tasks]) for t in times]
    finally:
        renderer.close()


def _caption(recording: Recording, task: int, time: int, title: str) -> str:
    so_far = float(recording.trajectories.rewards[task, 0, :time].sum())
    goal = recording.goals[task]
    if isinstance(recording.family, PointNavigation):
        return f"{title}\ngoal ({goal[0]:.2f}, {goal[1]:.2f})\nreturn {so_far:.1f}"
    wanted = f"goal {goal[0]:+.0f}" if recording.family.goal == "direction" else f"goal {goal[0]:.2f} m/s"
    return f"{title}\n{wanted}, speed {recording.velocity[task, time]:+.2f} m/s\nreturn {so_far:+.1f}"
