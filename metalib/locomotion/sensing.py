"""What a policy observes, and what rewards need, of the state after a step; see :mod:`metalib.locomotion.tasks`.

After a step MuJoCo's derived fields describe the state before the last substep (for a half-cheetah up to 2.5 cm and
0.95 m/s off). What is read here belongs to the state after it, as in the original, which called ``mj_forward``.
"""

from typing import Protocol

import torch
from torch import Tensor

from metalib.locomotion.physics import mujoco
from metalib.locomotion.planar import PlanarCentreOfMass
from metalib.locomotion.stepping import Derived


class Sensing(Protocol):
    """Reads bodies after their step."""

    velocity: Tensor
    squared_contact: Tensor | None

    def update(self) -> None:
        """Bring ``velocity`` ``[bodies]`` and ``squared_contact`` ``[bodies]`` to the current state."""

    def observe(self) -> Tensor:
        """Return the observations ``[bodies, n]`` of the current state, float32; a live view."""


class CheetahSensing:
    """20 numbers: joint positions without the root's x, joint velocities, the centre of mass."""

    squared_contact: Tensor | None = None

    def __init__(self, model: "mujoco.MjModel", state: Tensor) -> None:
        self._centre = PlanarCentreOfMass(model, state)
        self.velocity = self._centre.velocity
        self._out = torch.zeros(len(state), state.shape[1] - 1 + 3)  # the centre's y stays zero
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

    Contact forces are those that a fresh ``mj_forward`` finds under the action just taken, as in the original. Where
    there is a contact they take one more solution for the accelerations than the four of a Runge-Kutta step.
    """  # fmt: skip

    def __init__(self, state: Tensor, derived: Derived) -> None:
        n_bodies, self._forces = len(state), derived.forces
        sources = [state, derived.forces, derived.rotation, derived.centre]
        self._out = torch.zeros(n_bodies, sum(source.shape[1] for source in sources))
        targets = self._out.split([source.shape[1] for source in sources], dim=1)
        self._clipped = targets[1]  # written by update
        self._copies = [(targets[part], sources[part]) for part in (0, 2, 3)]
        self.velocity = derived.velocity
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
