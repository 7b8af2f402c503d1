"""Many bodies of one kind stepped together on MuJoCo's ``Batch``."""

from typing import Protocol

import torch
from torch import Tensor

from metalib.locomotion.bodies import load_body
from metalib.locomotion.families import Family
from metalib.locomotion.outcome import Outcome, check_action_shape
from metalib.locomotion.physics import Batch, mujoco
from metalib.locomotion.point_navigation import PointNavigation, PointSimulation
from metalib.locomotion.sensing import AntSensing, CheetahSensing, Sensing, live
from metalib.locomotion.tasks import LocomotionFamily

POSITION_NOISE = 0.01
VELOCITY_NOISE = 0.1
"""Standard deviations of joint positions (m, rad) and velocities (m/s, rad/s) at a reset."""


class Simulation(Protocol):
    """Bodies of one task family, stepped together. Tensors are live: copy what must last."""

    n_bodies: int
    seconds: float
    """The time that one action lasts."""

    @property
    def positions(self) -> Tensor:
        """Joint positions ``[bodies, nq]``."""

    @property
    def velocity(self) -> Tensor:
        """The x-velocity of every centre of mass in m/s, ``[bodies]``."""

    def reset(self, noise: Tensor, goals: Tensor, ids: Tensor | None = None) -> None:
        """Start the bodies ``ids`` (int64; all if None) anew.

        Args:
            noise: standard normals ``[n, start_noise_size]``.
            goals: ``[n, goal_size]``.
            ids: which bodies.
        """

    def observe(self) -> Tensor:
        """Return the observations ``[bodies, observation_size]`` of the current states, float32."""

    def step(self, actions: Tensor, ids: Tensor | None = None) -> Outcome:
        """Take one action ``[bodies, action_size]`` with the bodies ``ids`` (all if None); the others stand still."""


def make_simulation(family: Family, n_bodies: int, timing: str = "paper", threads: int = 1) -> Simulation:
    """Return ``n_bodies`` bodies of a family; they must be reset before they are stepped.

    Raises:
        ValueError: the timing is unknown, or there is no body or no thread.
    """
    for name, value in (("bodies", n_bodies), ("threads", threads)):
        if value < 1:
            raise ValueError(f"{name} must be 1 or more, got {value}")
    if isinstance(family, PointNavigation):
        return PointSimulation(family, n_bodies)
    return LocomotionSimulation(family, n_bodies, timing, threads)


class LocomotionSimulation:
    """Half-cheetahs or ants; see :class:`Simulation`.

    The state sequence of a body is a function of its start and its actions alone, bit for bit: neither the other
    bodies nor the number of threads enter.
    """

    def __init__(self, family: LocomotionFamily, n_bodies: int, timing: str = "paper", threads: int = 1) -> None:
        self.family = family
        self.n_bodies = n_bodies
        self.body = load_body(family.body, timing)
        self.seconds = self.body.seconds
        self._batch = Batch(self.body.model, n_bodies, threads)
        self._qpos, self._qvel, self._ctrl = (live(self._batch, name) for name in ("qpos", "qvel", "ctrl"))
        self._sensing: Sensing = CheetahSensing(self._batch) if family.body == "cheetah" else AntSensing(self._batch)
        self._start = torch.from_numpy(self.body.start)
        self._goals = torch.zeros(n_bodies, dtype=torch.float64)
        self._actions = torch.zeros(n_bodies, family.action_size, dtype=torch.float64)

    @property
    def positions(self) -> Tensor:
        """See :class:`Simulation`."""
        return self._qpos

    @property
    def velocity(self) -> Tensor:
        """See :class:`Simulation`."""
        return self._sensing.velocity

    def reset(self, noise: Tensor, goals: Tensor, ids: Tensor | None = None) -> None:
        """See :class:`Simulation`: joint positions get N(0, 0.01^2), velocities N(0, 0.1^2)."""
        rows = slice(None) if ids is None else ids
        on_positions, on_velocities = noise.double().split([self._qpos.shape[1], self._qvel.shape[1]], dim=1)
        self._restart(ids)
        self._qpos[rows] = self._start + POSITION_NOISE * on_positions
        self._qvel[rows] = VELOCITY_NOISE * on_velocities
        self._goals[rows] = goals[:, 0].double()
        self._forward(ids)

    def set_state(self, positions: Tensor, velocities: Tensor) -> None:
        """Put all bodies into states ``[bodies, nq]`` and ``[bodies, nv]``, as Gymnasium's ``set_state`` does."""
        self._restart(None)
        self._qpos.copy_(positions)
        self._qvel.copy_(velocities)
        self._forward(None)

    def observe(self) -> Tensor:
        """See :class:`Simulation`."""
        return self._sensing.observe()

    def step(self, actions: Tensor, ids: Tensor | None = None) -> Outcome:
        """See :class:`Simulation`.

        Raises:
            ValueError: the actions are of another shape.
        """
        check_action_shape(actions, self._actions)
        self._actions.copy_(actions).clamp_(-1.0, 1.0)
        # MuJoCo would warn on the console of a NaN; the reward keeps it, which ends the rollout.
        torch.nan_to_num(self._actions, out=self._ctrl)
        self._batch.step(_indices(ids), self.body.substeps, self._sensing.stage)
        self._sensing.update()
        squared_action = self._actions.square_().sum(dim=1)
        rewards = self.family.reward(self.velocity, self._goals, squared_action, self._sensing.squared_contact)
        return Outcome(rewards, self.family.unhealthy(self._qpos[:, 2]))

    def _restart(self, ids: Tensor | None) -> None:
        # Clears the solver's warm start too, which is part of a state.
        self._batch.reset(_indices(ids), stage=mujoco.mjtStage.mjSTAGE_NONE.value)

    def _forward(self, ids: Tensor | None) -> None:
        self._batch.forward(_indices(ids))
        self._sensing.update()


def _indices(ids: Tensor | None) -> object:
    return None if ids is None else ids.numpy()
