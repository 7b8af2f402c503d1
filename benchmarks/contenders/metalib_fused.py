"""metalib as training runs it: a chunk of meta-steps in the kernel, or in a compiled program where that is faster."""

from functools import partial
from pathlib import Path

from torch import Tensor

from benchmarks.contenders.catalogue import Run
from benchmarks.contenders.metalib_chunk import prepare_with
from benchmarks.problem import Problem
from metalib.compilation import compile_scan
from metalib.losses import Episode
from metalib.meta_training.fused_mlp import fuse


def prepare(problem: Problem, theta: Tensor, episodes: Episode, folder: Path) -> Run:
    """Build the kernel into ``folder``, or load it from there."""
    backend = partial(fuse, folder=folder, otherwise=partial(compile_scan, folder=folder))
    return prepare_with(backend, problem, theta, episodes)
