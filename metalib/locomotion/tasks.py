"""The four locomotion task families p(T): goals, rewards, early ends. Finn, Abbeel and Levine (2017), section 5.3.

Settings are those of the released code (cbfinn/maml_rl, ``*_env_rand*.py``)::

    family        reward of a step                                                            goal g
    cheetah_vel   -|v - g| - 0.05 sum a^2                                                     U[0, 2] m/s
    cheetah_dir   g v      - 0.05 sum a^2                                                     -1 or +1
    ant_vel       1 - |v - g| - 0.005 sum a^2 - 0.0005 sum clip(f, -1, 1)^2 + 0.05            U[0, 3] m/s
    ant_dir       g v         - 0.005 sum a^2 - 0.0005 sum clip(f, -1, 1)^2 + 0.05            -1 or +1

v is the x-velocity (m/s) of the whole body's centre of mass, a the action clipped to [-1, 1] (torques, as parts of each
motor's largest), f the external forces and torques on every body part (``cfrc_ext``: N m, N m, N m, N, N, N). All
belong to the state after the step. Ants end when their torso's height leaves [0.2, 1] m; cheetahs never end.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

_OBSERVATION_PARTS = {
    "cheetah": {"positions": 8, "velocities": 9, "centre_of_mass": 3},
    "ant": {"positions": 15, "velocities": 14, "contact_forces": 84, "rotation": 9, "centre_of_mass": 3},
}


@dataclass(frozen=True)
class LocomotionFamily:
    """A distribution of locomotion tasks, which differ by their goal alone.

    Args:
        name: as in the table above.
        body: of :data:`metalib.locomotion.bodies.BODIES`.
        goal: a ``velocity`` to keep, uniform on ``goal_range``; or a ``direction``, one of the two of ``goal_range``.
        goal_range: m/s, or the two directions.
        survival: added to the reward of every step.
        control_cost: for each unit of squared action.
        contact_cost: for each unit of squared contact force, forces being clipped to [-1, 1].
        healthy_heights: in m, between which the torso must stay; None if nothing ends a rollout early.
    """

    name: str
    body: Literal["cheetah", "ant"]
    goal: Literal["velocity", "direction"]
    goal_range: tuple[float, float]
    survival: float
    control_cost: float
    contact_cost: float = 0.0
    healthy_heights: tuple[float, float] | None = None

    goal_size = 1
    horizon = 200
    action_bound = 1.0

    @property
    def observation_parts(self) -> dict[str, int]:
        """How many numbers each part of an observation has, in their order; see :mod:`metalib.locomotion.sensing`."""
        return _OBSERVATION_PARTS[self.body]

    @property
    def observation_size(self) -> int:
        """How many numbers an observation has."""
        return sum(self.observation_parts.values())

    @property
    def action_size(self) -> int:
        """How many motors the body has."""
        return {"cheetah": 6, "ant": 8}[self.body]

    @property
    def start_noise_size(self) -> int:
        """How many standard normals a reset takes: one for each joint position and velocity."""
        return {"cheetah": 9 + 9, "ant": 15 + 14}[self.body]

    def draw_goals(self, generator: torch.Generator, n: int) -> Tensor:
        """Draw the goals ``[n, 1]`` of ``n`` independent tasks."""
        low, high = self.goal_range
        uniform = torch.rand(n, 1, generator=generator)
        if self.goal == "direction":
            return torch.where(uniform < 0.5, low, high)
        return low + (high - low) * uniform

    def check_goals(self, goals: Tensor) -> None:
        """Refuse goals ``[n, 1]`` that are no goals of this family.

        Raises:
            ValueError: of the wrong shape, or a goal lies outside the family's range.
        """
        check_goal_shape(self.name, goals, self.goal_size)
        low, high = self.goal_range
        allowed = (goals == low) | (goals == high) if self.goal == "direction" else (goals >= low) & (goals <= high)
        if not bool(allowed.all()):
            wrong = float(goals[~allowed][0])
            told = f"{low:g} or {high:g}" if self.goal == "direction" else f"from {low:g} to {high:g} m/s"
            raise ValueError(f"{self.name}: the goal {wrong:g} is not allowed; allowed: {told}")

    def reward(self, velocity: Tensor, goals: Tensor, squared_action: Tensor, squared_contact: Tensor | None) -> Tensor:
        """Return the reward of one step.

        Args:
            velocity: of the centre of mass along x after the step, m/s, ``[n]``.
            goals: ``[n]``.
            squared_action: sum of the squared clipped actions, ``[n]``.
            squared_contact: sum of the squared clipped contact forces after the step, ``[n]``; None without its cost.
        """
        reward = velocity * goals if self.goal == "direction" else (velocity - goals).abs_().neg_()
        reward.sub_(squared_action, alpha=self.control_cost)
        if self.survival:
            reward.add_(self.survival)
        return reward if squared_contact is None else reward.sub_(squared_contact, alpha=self.contact_cost)

    def unhealthy(self, height: Tensor) -> Tensor | None:
        """Return which torsos of ``height`` ``[n]`` in m end their rollout; None if none ever does."""
        if self.healthy_heights is None:
            return None
        low, high = self.healthy_heights
        return (height < low) | (height > high)


def check_goal_shape(name: str, goals: Tensor, goal_size: int) -> None:
    """Raise a ValueError unless ``goals`` is ``[n, goal_size]`` with n of 1 or more."""
    if goals.ndim != 2 or goals.shape[1] != goal_size or not len(goals):
        raise ValueError(f"{name}: goals must be of shape [tasks, {goal_size}], got {list(goals.shape)}")


CHEETAH_VEL = LocomotionFamily("cheetah_vel", "cheetah", "velocity", (0.0, 2.0), survival=0.0, control_cost=0.05)
CHEETAH_DIR = LocomotionFamily("cheetah_dir", "cheetah", "direction", (-1.0, 1.0), survival=0.0, control_cost=0.05)
ANT_VEL = LocomotionFamily(
    "ant_vel",
    "ant",
    "velocity",
    (0.0, 3.0),
    survival=1.05,
    control_cost=0.005,
    contact_cost=0.0005,
    healthy_heights=(0.2, 1.0),
)
ANT_DIR = LocomotionFamily(
    "ant_dir",
    "ant",
    "direction",
    (-1.0, 1.0),
    survival=0.05,
    control_cost=0.005,
    contact_cost=0.0005,
    healthy_heights=(0.2, 1.0),
)
