"""What the single and the vector Gymnasium environment share: bodies with goals, in NumPy arrays that are copies."""

from collections.abc import Iterable

import gymnasium
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from metalib.locomotion.bodies import TIMINGS, load_body
from metalib.locomotion.families import Family
from metalib.locomotion.point_navigation import PointNavigation
from metalib.locomotion.rendering import BodyRenderer, Frame, point_frame
from metalib.locomotion.simulation import Simulation, make_simulation
from metalib.randomness import generator

Goal = float | ArrayLike | None
Numbers = NDArray[np.float32]

_LARGEST = 1e10  # beyond which MuJoCo calls a state unstable


class NumpyBodies:
    """Bodies with goals, which reset one by one.

    Args:
        family: their tasks.
        n_bodies: how many.
        goal: one for all, or one for each; None draws one at every reset of a body.
        timing: of :data:`metalib.locomotion.bodies.TIMINGS`.
        threads: that step them.
        drawn: whether pictures will be asked for, for which points keep their paths.

    Raises:
        ValueError: an unknown timing, a goal that the family does not have, or not one for each body.
    """

    def __init__(self, family: Family, n_bodies: int, goal: Goal, timing: str, threads: int, drawn: bool) -> None:
        if timing not in TIMINGS:
            raise ValueError(f"unknown timing {timing!r}; known: {', '.join(TIMINGS)}")
        self.family, self.timing = family, timing
        self._fixed = _goals(family, goal, n_bodies)
        self._simulation: Simulation = make_simulation(family, n_bodies, timing, threads)
        self._goals = torch.zeros(n_bodies, family.goal_size)
        self._non_finite = np.zeros(n_bodies, dtype=np.bool_)
        self._keeps_paths = drawn and isinstance(family, PointNavigation)
        self._paths: list[list[NDArray[np.float64]]] = [[] for _ in range(n_bodies)]
        self._renderer: BodyRenderer | None = None
        self.frames_per_second = round(1 / self._simulation.seconds)

    def spaces(self) -> tuple[gymnasium.spaces.Box, gymnasium.spaces.Box]:
        """Return the spaces of one body's observations and actions."""
        family = self.family
        return (
            gymnasium.spaces.Box(-_LARGEST, _LARGEST, (family.observation_size,), np.float32),
            gymnasium.spaces.Box(-family.action_bound, family.action_bound, (family.action_size,), np.float32),
        )

    def reset(self, indices: list[int], generators: list[np.random.Generator]) -> None:
        """Start bodies anew, each from one number of its generator."""
        noise = torch.empty(len(indices), self.family.start_noise_size)
        for row, (index, numbers) in enumerate(zip(indices, generators, strict=True)):
            drawn = generator(int(numbers.integers(2**62)), "episode")
            drawn_goal = self.family.draw_goals(drawn, 1)[0]
            self._goals[index] = drawn_goal if self._fixed is None else self._fixed[index]
            noise[row] = torch.randn(self.family.start_noise_size, generator=drawn)
        ids = torch.tensor(indices)
        self._simulation.reset(noise, self._goals[ids], ids)
        self._non_finite[indices] = False
        for index in indices:
            self._paths[index] = []
        self._keep_paths()

    def step(
        self, actions: NDArray[np.generic], moving: NDArray[np.bool_] | None
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return rewards and terminations; both are zero for bodies that are not ``moving``."""
        moved = np.ones(len(self._non_finite), dtype=np.bool_) if moving is None else moving
        ids = None if moved.all() else torch.from_numpy(np.flatnonzero(moved))
        outcome = self._simulation.step(torch.from_numpy(np.ascontiguousarray(actions)), ids)
        rewards = np.where(moved, outcome.rewards.numpy(), 0.0)
        ended = np.zeros_like(moved) if outcome.ended is None else outcome.ended.numpy() & moved
        self._non_finite = ~np.isfinite(rewards)
        self._keep_paths()
        return np.where(self._non_finite, 0.0, rewards), ended | self._non_finite

    def observations(self) -> Numbers:
        """Return a copy of all observations; what is not finite is 0."""
        observed: Numbers = torch.nan_to_num(self._simulation.observe(), 0.0, 0.0, 0.0).numpy()
        return observed

    def infos(self) -> dict[str, NDArray[np.generic]]:
        """Return a copy of goals, speeds and breakdowns of all bodies."""
        goals = self._goals.double().numpy().copy()
        velocity = torch.nan_to_num(self._simulation.velocity, 0.0, 0.0, 0.0).numpy().copy()
        goals = goals if self.family.goal_size > 1 else goals[:, 0]
        return {"goal": goals, "velocity": velocity, "non_finite": self._non_finite.copy()}

    def pictures(self, indices: Iterable[int]) -> list[Frame]:
        """Return pictures of bodies."""
        if isinstance(self.family, PointNavigation):
            goals = self._goals.double().numpy()
            return [point_frame(np.stack(self._paths[index]), goals[index]) for index in indices]
        if self._renderer is None:
            self._renderer = BodyRenderer(load_body(self.family.body, self.timing))
        positions = self._simulation.positions.numpy()
        return [self._renderer.frame(positions[index]) for index in indices]

    def close(self) -> None:
        """Give graphics memory back; more than once is allowed."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def _keep_paths(self) -> None:
        if self._keeps_paths:
            for path, position in zip(self._paths, self._simulation.positions.numpy(), strict=True):
                path.append(position.copy())


def _goals(family: Family, goal: Goal, n_bodies: int) -> Tensor | None:
    """Return fixed goals ``[bodies, goal_size]``; None if they are to be drawn."""
    if goal is None:
        return None
    goals = torch.as_tensor(np.asarray(goal, dtype=np.float32))
    if goals.ndim <= (family.goal_size > 1):  # one for all
        goals = goals.reshape(1, -1).expand(n_bodies, -1)
    goals = goals.reshape(len(goals), -1).contiguous()
    family.check_goals(goals)
    if len(goals) != n_bodies:
        raise ValueError(f"{family.name}: one goal, or one for each of {n_bodies} bodies, got {len(goals)}")
    return goals
