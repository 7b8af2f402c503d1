"""A point that walks to a goal in the plane: Finn, Abbeel and Levine (2017), section 5.3, in PyTorch alone."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from metalib.locomotion.outcome import Outcome, check_action_shape
from metalib.locomotion.tasks import check_goal_shape

_NEAR = 0.01


@dataclass(frozen=True)
class PointNavigation:
    """Goals uniform on the square of side 1 around the origin, where the point starts.

    The action is the step ``[2]``, each part clipped to [-0.1, 0.1]; the observation is the position ``[2]``; the
    reward is the negative squared distance to the goal after the step; a rollout ends within 0.01 of the goal.
    """

    name: str = "point_navigation"

    body = "point"
    goal_size = 2
    horizon = 100
    observation_parts: ClassVar[dict[str, int]] = {"positions": 2}
    observation_size = 2
    action_size = 2
    action_bound = 0.1
    start_noise_size = 0

    def draw_goals(self, generator: torch.Generator, n: int) -> Tensor:
        """Draw the goals ``[n, 2]`` of ``n`` independent tasks."""
        return torch.rand(n, 2, generator=generator) - 0.5

    def check_goals(self, goals: Tensor) -> None:
        """Refuse goals ``[n, 2]`` outside the square.

        Raises:
            ValueError: of the wrong shape, or outside.
        """
        check_goal_shape(self.name, goals, self.goal_size)
        outside = ~(goals.abs() <= 0.5).all(dim=1)
        if bool(outside.any()):
            raise ValueError(
                f"{self.name}: the goal {goals[outside][0].tolist()} is not allowed; allowed: both from -0.5 to 0.5"
            )


class PointSimulation:
    """Points stepped together; the interface of :class:`metalib.locomotion.simulation.Simulation`."""

    def __init__(self, family: PointNavigation, n_bodies: int) -> None:
        self.family = family
        self.n_bodies = n_bodies
        self.seconds = 0.04  # nothing depends on it; films show 12 steps a second
        self._position = torch.zeros(n_bodies, 2, dtype=torch.float64)
        self._goals = torch.zeros(n_bodies, 2, dtype=torch.float64)

    @property
    def positions(self) -> Tensor:
        """Where the points are, ``[bodies, 2]``; a live view."""
        return self._position

    @property
    def velocity(self) -> Tensor:
        """Zeros ``[bodies]``: a point has no velocity of its own."""
        return torch.zeros(self.n_bodies, dtype=torch.float64)

    def reset(self, noise: Tensor, goals: Tensor, ids: Tensor | None = None) -> None:
        """Put points to the origin and set their goals; ``noise`` ``[n, 0]`` is not used."""
        rows = slice(None) if ids is None else ids
        self._position[rows] = 0.0
        self._goals[rows] = goals.double()

    def observe(self) -> Tensor:
        """Return the observations ``[bodies, 2]``: the positions, float32."""
        return self._position.float()

    def step(self, actions: Tensor, ids: Tensor | None = None) -> Outcome:
        """Move the points ``ids`` (all if None) by ``actions`` ``[bodies, 2]``.

        Raises:
            ValueError: the actions are of another shape.
        """
        check_action_shape(actions, self._position)
        rows = slice(None) if ids is None else ids
        bound = self.family.action_bound
        self._position[rows] += actions[rows].double().clamp(-bound, bound)
        away = self._position - self._goals
        squared = away.square().sum(dim=1)
        return Outcome(-squared, squared < _NEAR**2)
