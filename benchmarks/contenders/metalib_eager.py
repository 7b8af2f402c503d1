"""metalib without compilation: a meta-step batched over tasks and seeds, in a Python loop over steps."""

from pathlib import Path

from torch import Tensor

from benchmarks.contenders.catalogue import Run
from benchmarks.contenders.metalib_chunk import prepare_with
from benchmarks.problem import Problem
from metalib.compilation import repeat_eagerly
from metalib.losses import Episode


def prepare(problem: Problem, theta: Tensor, episodes: Episode, folder: Path) -> Run:
    """Return the loop; nothing is compiled."""
    return prepare_with(repeat_eagerly, problem, theta, episodes)
