"""Bodies stepped by stepping.cpp: the same states, bit for bit, as on MuJoCo's ``Batch``, in less time."""

import ctypes
import functools
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from metalib.compilation import native
from metalib.locomotion.bodies import Body
from metalib.locomotion.physics import mujoco
from metalib.locomotion.stepping import Derived

SOURCE = Path(__file__).with_name("stepping.cpp")
_BUILDING = threading.Lock()


class NativeStepper:
    """A :class:`metalib.locomotion.stepping.Stepper`. Made where :func:`load_library` succeeds.

    Args:
        library: stepping.cpp.
        body: what to step.
        n_bodies: how many.
        threads: that step them.
    """

    def __init__(self, library: ctypes.CDLL, body: Body, n_bodies: int, threads: int) -> None:
        model = body.model
        self._library, self._body = library, body  # whose model must live as long
        self._start = torch.from_numpy(np.concatenate([model.qpos0, np.zeros(model.nv)]))
        sizes = (len(self._start), model.nv, model.nu, sum(_derived_sizes(body)))
        rows = [torch.zeros(n_bodies, size, dtype=torch.float64) for size in sizes]
        self.state, self._warmstart, self.controls, derived = rows
        self.derived = _split(derived, body) if derived.shape[1] else None
        pointers = [ctypes.c_void_p(row.data_ptr()) for row in rows]
        self._rows = rows  # which compiled code writes to
        counts = [ctypes.c_int64(number) for number in (body.substeps, n_bodies, threads, body.name == "ant")]
        self._stepper = ctypes.c_void_p(library.stepper_open(ctypes.c_void_p(model._address), *counts, *pointers))
        weakref.finalize(self, library.stepper_close, self._stepper)

    def restart(self, ids: Tensor | None) -> None:
        """See :class:`metalib.locomotion.stepping.Stepper`."""
        rows = slice(None) if ids is None else _checked(ids, len(self.state))
        self.state[rows] = self._start
        self._warmstart[rows] = 0.0
        self.controls[rows] = 0.0

    def forward(self, ids: Tensor | None) -> None:
        """See :class:`metalib.locomotion.stepping.Stepper`."""
        if self.derived is not None:
            self._call(self._library.stepper_forward, ids)

    def step(self, ids: Tensor | None) -> None:
        """See :class:`metalib.locomotion.stepping.Stepper`."""
        self._call(self._library.stepper_step, ids)

    def _call(self, function: Callable[..., None], ids: Tensor | None) -> None:
        if ids is None:
            function(self._stepper, None, ctypes.c_int64(len(self.state)))
        else:
            ids = _checked(ids, len(self.state))
            function(self._stepper, ctypes.c_void_p(ids.data_ptr()), ctypes.c_int64(len(ids)))


def load_library() -> ctypes.CDLL | None:
    """Return stepping.cpp, built on first use and kept beside this file's byte code; None if it cannot be built."""
    with _BUILDING:
        return _load_library()


@functools.cache
def _load_library() -> ctypes.CDLL | None:
    cxx, physics = native.compiler(), Path(mujoco.__file__).parent
    shared = next(physics.glob("libmujoco.*"), None)
    if cxx is None or shared is None:
        return None
    flags = (f"-I{physics / 'include'}", str(shared), f"-Wl,-rpath,{physics}", "-pthread")
    try:
        library = native.load(SOURCE, SOURCE.parent / "__pycache__" / f"mujoco-{mujoco.__version__}", cxx, flags)
    except OSError:  # a folder that cannot be written, or a library of another system
        return None
    if library is not None:
        library.stepper_open.restype = ctypes.c_void_p
    return library


def _checked(ids: Tensor, n_bodies: int) -> Tensor:
    """Refuse what would write beyond the rows or into one from two threads, and other orders, as ``Batch`` does."""
    ascending = ids.dtype == torch.int64 and ids.ndim == 1 and bool((ids.diff() > 0).all())
    if not ascending or (len(ids) > 0 and (int(ids[0]) < 0 or int(ids[-1]) >= n_bodies)):
        raise ValueError(f"ids must be int64, ascending, from 0 to {n_bodies - 1}; got {ids.tolist()} of {ids.dtype}")
    return ids.contiguous()


def _derived_sizes(body: Body) -> list[int]:
    """Return how many numbers each of :class:`Derived` has; none for a half-cheetah."""
    return [6 * body.model.nbody, 9, 3, 1] if body.name == "ant" else []


def _split(rows: Tensor, body: Body) -> Derived:
    forces, rotation, centre, velocity = rows.split(_derived_sizes(body), dim=1)
    return Derived(forces, rotation, centre, velocity[:, 0])
