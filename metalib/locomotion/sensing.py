"""What a policy observes, and what rewards need, of the state after a step; see :mod:`metalib.locomotion.tasks`.

After a step MuJoCo's derived fields describe the state before the last substep (for a half-cheetah up to 2.5 cm and
0.95 m/s off). What is read here belongs to the state after it, as in the original, which called ``mj_forward``.
"""

import warnings
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from metalib.locomotion.physics import Batch, mujoco
from metalib.locomotion.planar import PlanarCentreOfMass

_TORSO = 1


class Sensing(Protocol):
    """Reads a batch after its step; ``stage`` says what MuJoCo must compute for it."""

    stage: int
    velocity: Tensor
    squared_contact: Tensor | None

    def update(self) -> None:
        """Bring ``velocity`` ``[bodies]`` and ``squared_contact`` ``[bodies]`` to the current state."""

    def observe(self) -> Tensor:
        """Return the observations ``[bodies, n]`` of the current state, float32; a live view."""


class CheetahSensing:
    """20 numbers: joint positions without the root's x, joint velocities, the centre of mass."""

    stage: int = mujoco.mjtStage.mjSTAGE_NONE.value
    squared_contact: Tensor | None = None

    def __init__(self, batch: Batch) -> None:
        state = positions_and_velocities(batch)
        self._centre = PlanarCentreOfMass(batch.model, state)
        self.velocity = self._centre.velocity
        self._out = torch.zeros(batch.nsim, state.shape[1] - 1 + 3)  # the centre's y stays zero
        self._copies = [(self._out[:, :-3], state[:, 1:]), (self._out[:, -3::2], self._centre.position.t())]

    def update(self) -> None:
        """See :class:`Sensing`."""
        self._centre.update()

    def observe(self) -> Tensor:
        """See :class:`Sensing`."""
        for target, source in self._copies:
            target.copy_(source)
        return self._out


class AntSensing:
    """125 numbers: joint positions, joint velocities, contact forces clipped to [-1, 1] of the world and 13 parts,
    the torso's rotation matrix, the centre of mass.

    Contact forces are those that a fresh ``mj_forward`` finds under the action just taken, as in the original. That is
    one forward computation more than the four of a Runge-Kutta step.
    """  # fmt: skip

    stage: int = mujoco.mjtStage.mjSTAGE_ACC.value

    def __init__(self, batch: Batch) -> None:
        n_bodies = batch.nsim
        state, self._forces = positions_and_velocities(batch), live(batch, "cfrc_ext").view(n_bodies, -1)
        rotation, centre = live(batch, "xmat")[:, _TORSO], live(batch, "subtree_com")[:, _TORSO]
        sources = [state, self._forces, rotation, centre]
        self._out = torch.zeros(n_bodies, sum(source.shape[1] for source in sources))
        targets = self._out.split([source.shape[1] for source in sources], dim=1)
        self._clipped = targets[1]  # written by update
        self._copies = [(targets[part], sources[part]) for part in (0, 2, 3)]
        self.velocity = live(batch, "sensordata")[:, batch.model.sensor("velocity").adr[0]]
        self._squares = torch.empty(self._forces.shape)
        self.squared_contact: Tensor | None = torch.zeros(n_bodies)

    def update(self) -> None:
        """See :class:`Sensing`."""
        self._clipped.copy_(self._forces).clamp_(-1.0, 1.0)
        torch.mul(self._clipped, self._clipped, out=self._squares)
        torch.sum(self._squares, dim=1, out=self.squared_contact)

    def observe(self) -> Tensor:
        """See :class:`Sensing`."""
        for target, source in self._copies:
            target.copy_(source)
        return self._out


def positions_and_velocities(batch: Batch) -> Tensor:
    """Return a live view ``[bodies, nq + nv]`` of joint positions and velocities, which lie side by side in a state."""
    rows, qpos, qvel = torch.from_numpy(batch.state), live(batch, "qpos"), live(batch, "qvel")
    first = (qpos.data_ptr() - rows.data_ptr()) // rows.element_size()
    assert qvel.data_ptr() == qpos.data_ptr() + qpos.shape[1] * qpos.element_size()
    return rows[:, first : first + qpos.shape[1] + qvel.shape[1]]


def live(batch: Batch, field: str) -> Tensor:
    """Return a field of all bodies as a tensor that shares its memory."""
    array: np.ndarray = batch.bind(field)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # derived fields are read-only, which a tensor cannot say
        return torch.from_numpy(array)
