"""Centre of mass of a planar body in closed form, so that nobody waits for MuJoCo's derived fields."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metalib.locomotion.physics import mujoco

_SLIDES = 2  # joints of the root, along x and z
_LANES = 32


class PlanarCentreOfMass:
    """Position and x-velocity of the centre of mass of bodies that slide along x and z and bend about y.

    With phi_b the sum of the hinge angles from the root to part b, and R(phi) the rotation about y::

        com = root + sum_b R(phi_b) w_b,      w_b = (m_b c_b + sum_{children k} M_k p_k) / M

    c_b is the part's own centre of mass, p_k where child k hangs, M_k the mass of k and all below it, M the total. The
    velocity is the derivative along the joints' velocities. MuJoCo's ``subtree_com`` and ``subtree_linvel`` of a fresh
    ``mj_forward`` are the same to rounding (1e-15), and cost more than twice as much.

    All intermediate values lie as ``[row, bodies]``, and linear steps that share their input are one product. The
    number of bodies is padded to a multiple of 32, so that no body falls into the remainder of a vectorised loop, which
    is rounded differently: a body's values then do not depend on how many others there are.

    Args:
        model: root joints are slides along x and z, every further joint a hinge about y at its part's origin.
        state: a live view ``[bodies, 2 nq]`` of joint positions and velocities.
    """

    def __init__(self, model: "mujoco.MjModel", state: Tensor) -> None:
        n_bodies, n_parts = len(state), model.nbody - 1
        width = -(-n_bodies // _LANES) * _LANES
        self._select, self._combine = torch.from_numpy(_selection(model)), torch.from_numpy(_combination(model))
        padded = torch.ones(width, state.shape[1] + 1, dtype=torch.float64)  # the last column: a constant
        self._source, self._copy, self._state = state, padded[:n_bodies, :-1], padded.t()
        self._selected = torch.empty(len(self._select), width, dtype=torch.float64)
        self._angle, self._root, self._rate = self._selected.split([n_parts, 2, n_parts + 1])
        circle = torch.empty(2 * n_parts, width, dtype=torch.float64)
        self._circle, (self._cos, self._sin) = circle, circle.split(n_parts)
        levers = torch.ones(n_parts + 3, width, dtype=torch.float64)  # the last row stays: the root's own
        self._combined, self._offset, self._lever = levers[:-1], levers[:2], levers[2:]
        self._velocity = torch.empty(width, dtype=torch.float64)
        self.position, self.velocity = self._offset[:, :n_bodies], self._velocity[:n_bodies]

    def update(self) -> None:
        """Recompute ``position`` ``[(x, z), bodies]`` in m and ``velocity`` ``[bodies]`` in m/s along x, in place."""
        self._copy.copy_(self._source)
        torch.mm(self._select, self._state, out=self._selected)
        torch.cos(self._angle, out=self._cos)
        torch.sin(self._angle, out=self._sin)
        torch.mm(self._combine, self._circle, out=self._combined)
        self._offset.add_(self._root)
        # d/dt of cos(phi) w_x + sin(phi) w_z is phi' times the z-coordinate of R(phi) w, the lever.
        torch.sum(self._rate.mul_(self._lever), dim=0, out=self._velocity)


def _selection(model: "mujoco.MjModel") -> NDArray[np.float64]:
    """Return the matrix that takes (qpos, qvel, 1) to every phi_b, the root's x and z, every phi_b', the root's x'."""
    n_joints, n_parts = model.nv, model.nbody - 1
    chain = np.zeros((n_parts, n_joints))
    for part in range(1, model.nbody):
        first, count = model.body_jntadr[part], model.body_jntnum[part]
        chain[part - 1, first : first + count] = 1.0
        chain[part - 1, :_SLIDES] = 0.0
        if model.body_parentid[part]:
            chain[part - 1] += chain[model.body_parentid[part] - 1]
    chain, joint = np.concatenate([chain, np.eye(n_joints)[:_SLIDES]]), np.eye(n_joints)
    rates = np.concatenate([chain[:n_parts], joint[:1]])
    select = np.zeros((len(chain) + len(rates), 2 * n_joints + 1))
    select[: len(chain), :n_joints], select[len(chain) :, n_joints:-1] = chain, rates
    select[n_parts : n_parts + _SLIDES, -1] = model.body_pos[1, ::2]
    return select


def _combination(model: "mujoco.MjModel") -> NDArray[np.float64]:
    """Return the matrix that takes (cos phi_b, sin phi_b) to the sums of x and z, and every z, of R(phi_b) w_b."""
    w = model.body_mass[1:, None] * model.body_ipos[1:, ::2]
    for part in range(2, model.nbody):
        w[model.body_parentid[part] - 1] += model.body_subtreemass[part] * model.body_pos[part, ::2]
    w_x, w_z = (w / model.body_subtreemass[1]).T
    levers = np.concatenate([np.diag(w_z), -np.diag(w_x)], axis=1)
    return np.concatenate([np.concatenate([w_x, w_z])[None], levers.sum(axis=0)[None], levers])
