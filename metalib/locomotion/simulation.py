"""Many bodies of one kind stepped together."""

from typing import Protocol

import torch
from torch import Tensor

from metalib.locomotion.bodies import Body, load_body
from metalib.locomotion.families import Family
from metalib.locomotion.native_stepping import NativeStepper, load_library
from metalib.locomotion.outcome import Outcome, check_action_shape
from metalib.locomotion.point_navigation import PointNavigation, PointSimulation
from metalib.locomotion.sensing import AntSensing, CheetahSensing, Sensing
from metalib.locomotion.stepping import BatchStepper, Stepper
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
        """Start the bodies ``ids`` (int64, ascending; all if None) anew.

        Args:
            noise: standard normals ``[n, start_noise_size]``.
            goals: ``[n, goal_size]``.
            ids: which bodies.
        """

    def observe(self) -> Tensor:
        """Return the observations ``[bodies, observation_size]`` of the current states, float32."""

    def step(self, actions: Tensor, ids: Tensor | None = None) -> Outcome:
        """Take one action ``[bodies, action_size]`` with the bodies ``ids``; the others stand still.

        Args:
            actions: of all bodies.
            ids: which bodies (int64, ascending; all if None).
        """


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
    body = load_body(family.body, timing)
    return LocomotionSimulation(family, body, make_stepper(body, n_bodies, threads))


def make_stepper(body: Body, n_bodies: int, threads: int) -> Stepper:
    """Return compiled code that steps bodies, or where there is no C++ compiler MuJoCo's ``Batch``: the same bytes."""
    library = load_library()
    return BatchStepper(body, n_bodies, threads) if library is None else NativeStepper(library, body, n_bodies, threads)


class LocomotionSimulation:
    """Half-cheetahs or ants; see :class:`Simulation`.

    The state sequence of a body is a function of its start and its actions alone, bit for bit: neither the other
    bodies nor the number of threads enter.
    """

    def __init__(self, family: LocomotionFamily, body: Body, stepper: Stepper) -> None:
        self.family = family
        self.n_bodies = len(stepper.state)
        self.body = body
        self.seconds = body.seconds
        self._stepper = stepper
        n_positions = body.model.nq
        self._qpos, self._qvel = stepper.state[:, :n_positions], stepper.state[:, n_positions:]
        self._sensing = _sensing(body, stepper)
        self._start = torch.from_numpy(body.start)
        self._goals = torch.zeros(self.n_bodies, dtype=torch.float64)
        self._actions = torch.zeros(self.n_bodies, family.action_size, dtype=torch.float64)

    @property
    def positions(self) -> Tensor:
        """See :class:`Simulation`."""
        return self._qpos

    @property
    def velocity(self) -> Tensor:
        """See :class:`Simulation`."""
        return self._sensing.velocity

    def reset(self, noise: Tensor, goals: Tensor, ids: Tensor | None = None) -> None:
        """See :class:`Simulation`: joint positions get N(0, 0.01^2), velocities N(0, 0.1^2).

        Raises:
            ValueError: the ids are not ascending, or of bodies that there are not; all bodies are as they were.
        """
        rows = slice(None) if ids is None else ids
        on_positions, on_velocities = noise.double().split([self._qpos.shape[1], self._qvel.shape[1]], dim=1)
        self._stepper.restart(ids)  # which refuses ids before anything is written
        self._qpos[rows] = self._start + POSITION_NOISE * on_positions
        self._qvel[rows] = VELOCITY_NOISE * on_velocities
        self._goals[rows] = goals[:, 0].double()
        self._forward(ids)

    def set_state(self, positions: Tensor, velocities: Tensor) -> None:
        """Put all bodies into states ``[bodies, nq]`` and ``[bodies, nv]``, as Gymnasium's ``set_state`` does."""
        self._stepper.restart(None)
        self._qpos.copy_(positions)
        self._qvel.copy_(velocities)
        self._forward(None)

    def observe(self) -> Tensor:
        """See :class:`Simulation`."""
        return self._sensing.observe()

    def step(self, actions: Tensor, ids: Tensor | None = None) -> Outcome:
        """See :class:`Simulation`.

        Raises:
            ValueError: the actions are of another shape, or the ids not ascending or of bodies that there are not.
        """
        check_action_shape(actions, self._actions)
        self._actions.copy_(actions).clamp_(-1.0, 1.0)
        # MuJoCo would warn on the console of a NaN; the reward keeps it, which ends the rollout.
        torch.nan_to_num(self._actions, out=self._stepper.controls)
        self._stepper.step(ids)
        self._sensing.update()
        squared_action = self._actions.square_().sum(dim=1)
        rewards = self.family.reward(self.velocity, self._goals, squared_action, self._sensing.squared_contact)
        return Outcome(rewards, self.family.unhealthy(self._qpos[:, 2]))

    def _forward(self, ids: Tensor | None) -> None:
        self._stepper.forward(ids)
        self._sensing.update()


def _sensing(body: Body, stepper: Stepper) -> Sensing:
    if stepper.derived is None:
        return CheetahSensing(body.model, stepper.state)
    return AntSensing(stepper.state, stepper.derived)
