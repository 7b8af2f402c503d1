"""Training that survives being killed: state saved between chunks, and restored by the same command only."""

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils._pytree import tree_flatten, tree_unflatten

from metalib.errors import Interrupted
from metalib.storage import StorageError, load_tensors, save_tensors

_SCHEMA = "training state 1"
SAVING_SHARE = 0.02
"""Of training time, the most that saving what took long may take."""


class Progress(NamedTuple):
    """Where a run stands: meta-``steps`` done, training ``state``, and the ``curve`` so far (step to loss)."""

    steps: int
    state: Any
    curve: dict[int, float]


def state_key(determinants: Mapping[str, Any]) -> str:
    """Return the key of saved state: a hash of all that determines the result's bytes, given as plain data."""
    return hashlib.sha256(json.dumps(determinants, sort_keys=True).encode()).hexdigest()[:24]


class Checkpoints:
    """The saved state of one training run, in one file.

    Args:
        path: the file.
        key: see :func:`state_key`; state of another key is never used.
        every_seconds: the least time between two savings.
        stop_requested: asked after every chunk; when true, state is saved and :class:`Interrupted` raised.
        clock: seconds, monotonic.
        long_seconds: a chunk that took longer is saved at once, so that an interrupt loses one such chunk at most; some
            more where the disk is so slow that this would take more than :data:`SAVING_SHARE` of the time.
    """

    def __init__(
        self,
        path: Path,
        key: str,
        every_seconds: float,
        stop_requested: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
        long_seconds: float = math.inf,
    ) -> None:
        self._path = path
        self._key = key
        self._every = every_seconds
        self._stop_requested = stop_requested
        self._clock = clock
        self._long = long_seconds
        self._last_kept = self._last_saved = clock()
        self._saving_seconds = 0.0

    def restore(self, initial: Any) -> Progress:
        """Return the saved progress, or that of a new run from ``initial`` where none can be used.

        A missing, torn or damaged file, and the state of another key, count as none.
        """
        try:
            tensors, header = load_tensors(self._path, _SCHEMA)
        except StorageError:
            return Progress(0, initial, {})
        if header["key"] != self._key:
            return Progress(0, initial, {})
        leaves, tree = tree_flatten(initial)
        saved = [tensors[f"state{index}"].to(leaf.device) for index, leaf in enumerate(leaves)]
        curve = dict(zip(tensors["curve_steps"].tolist(), tensors["curve_losses"].tolist(), strict=True))
        return Progress(header["steps"], tree_unflatten(saved, tree), curve)

    def keep(self, progress: Progress) -> None:
        """Save the progress if it is time to.

        Raises:
            Interrupted: a stop was requested; the progress is saved.
            StorageError: the file cannot be written.
        """
        stop = self._stop_requested()
        if stop or self._is_due():
            self.save(progress)
        self._last_kept = self._clock()
        if stop:
            raise Interrupted(f"stopped after {progress.steps:,} steps")

    def _is_due(self) -> bool:
        now = self._clock()
        since_saved = now - self._last_saved
        is_cheap = self._saving_seconds <= SAVING_SHARE * since_saved
        return since_saved >= self._every or (now - self._last_kept > self._long and is_cheap)

    def save(self, progress: Progress) -> None:
        """Save the progress now.

        Raises:
            StorageError: the file cannot be written.
        """
        started = self._clock()
        tensors = {f"state{index}": leaf for index, leaf in enumerate(tree_flatten(progress.state)[0])}
        tensors["curve_steps"] = torch.tensor(list(progress.curve), dtype=torch.int64)
        tensors["curve_losses"] = torch.tensor(list(progress.curve.values()), dtype=torch.float64)
        save_tensors(self._path, _SCHEMA, tensors, {"key": self._key, "steps": progress.steps})
        self._last_saved = self._clock()
        self._saving_seconds = self._last_saved - started


def saved_steps(path: Path) -> int:
    """Return how many steps the saved state at ``path`` has done; 0 where there is none."""
    try:
        return int(load_tensors(path, _SCHEMA)[1]["steps"])
    except StorageError:
        return 0
