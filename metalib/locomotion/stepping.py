"""How bodies get from one state to the next: on MuJoCo's ``Batch``, which runs everywhere; see also native_stepping."""

import warnings
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from metalib.locomotion.bodies import Body
from metalib.locomotion.physics import Batch, mujoco

TORSO = 1


class Derived(NamedTuple):
    """What a fresh ``mj_forward`` says of the current states of ants under the actions just taken; live, float64.

    Args:
        forces: external forces and torques on the world and 13 parts (``cfrc_ext``), ``[bodies, 84]``.
        rotation: the torso's rotation matrix, ``[bodies, 9]``.
        centre: of mass, in m, ``[bodies, 3]``.
        velocity: of the centre of mass along x, in m/s, ``[bodies]``.
    """

    forces: Tensor
    rotation: Tensor
    centre: Tensor
    velocity: Tensor


class Stepper(Protocol):
    """Bodies of one model and their states. A state is positions, velocities and the solver's warm start."""

    state: Tensor
    """Joint positions and velocities ``[bodies, nq + nv]``, float64; live, and may be written."""
    controls: Tensor
    """``[bodies, nu]``, float64; live, to be written before a step."""
    derived: Derived | None
    """Of ants; None for half-cheetahs, whose observations follow from positions and velocities."""

    def restart(self, ids: Tensor | None) -> None:
        """Forget controls and warm start of the bodies ``ids`` (int64, ascending; all if None); then write states."""

    def forward(self, ids: Tensor | None) -> None:
        """Bring ``derived`` to states that were written."""

    def step(self, ids: Tensor | None) -> None:
        """Take the body's substeps under ``controls``, and bring ``derived`` to the new states."""


class BatchStepper:
    """A :class:`Stepper` on MuJoCo's ``Batch``.

    Args:
        body: what to step.
        n_bodies: how many.
        threads: that step them.
    """

    def __init__(self, body: Body, n_bodies: int, threads: int) -> None:
        self._substeps = body.substeps
        self._batch = Batch(body.model, n_bodies, threads)
        self.state, self.controls = _positions_and_velocities(self._batch), _live(self._batch, "ctrl")
        self.derived = _derived(self._batch) if body.name == "ant" else None
        stage = mujoco.mjtStage.mjSTAGE_ACC if self.derived else mujoco.mjtStage.mjSTAGE_NONE
        self._stage = stage.value

    def restart(self, ids: Tensor | None) -> None:
        """See :class:`Stepper`."""
        self._batch.reset(_indices(ids), stage=mujoco.mjtStage.mjSTAGE_NONE.value)

    def forward(self, ids: Tensor | None) -> None:
        """See :class:`Stepper`."""
        self._batch.forward(_indices(ids))

    def step(self, ids: Tensor | None) -> None:
        """See :class:`Stepper`."""
        self._batch.step(_indices(ids), self._substeps, self._stage)


def _derived(batch: Batch) -> Derived:
    return Derived(
        _live(batch, "cfrc_ext").flatten(1),
        _live(batch, "xmat")[:, TORSO],
        _live(batch, "subtree_com")[:, TORSO],
        _live(batch, "sensordata")[:, batch.model.sensor("velocity").adr[0]],
    )


def _positions_and_velocities(batch: Batch) -> Tensor:
    """Return a live view ``[bodies, nq + nv]`` of joint positions and velocities, which lie side by side in a state."""
    rows, qpos, qvel = torch.from_numpy(batch.state), _live(batch, "qpos"), _live(batch, "qvel")
    first = (qpos.data_ptr() - rows.data_ptr()) // rows.element_size()
    assert qvel.data_ptr() == qpos.data_ptr() + qpos.shape[1] * qpos.element_size()
    return rows[:, first : first + qpos.shape[1] + qvel.shape[1]]


def _live(batch: Batch, field: str) -> Tensor:
    """Return a field of all bodies as a tensor that shares its memory."""
    array: np.ndarray = batch.bind(field)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # derived fields are read-only, which a tensor cannot say
        return torch.from_numpy(array)


def _indices(ids: Tensor | None) -> object:
    return None if ids is None else ids.numpy()
