"""metalib, a chunk of meta-steps compiled ahead of time into one program for one thread."""

from functools import partial
from pathlib import Path

from torch import Tensor

from benchmarks.contenders.catalogue import Run
from benchmarks.contenders.metalib_chunk import prepare_with
from benchmarks.problem import Problem
from metalib.compilation import compile_scan
from metalib.losses import Episode


def prepare(problem: Problem, theta: Tensor, episodes: Episode, folder: Path) -> Run:
    """Compile the chunk into ``folder``, or load it from there."""
    return prepare_with(partial(compile_scan, folder=folder), problem, theta, episodes)
