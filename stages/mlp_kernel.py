"""The kernel of fully connected networks, for the stages that train them."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path

from metalib.compilation import Backend, obstacle
from metalib.meta_training.fused_mlp import fuse, is_low_rank, kernel_obstacle
from metalib.networks import MLP
from stages.training import SMALL_LEARNER, Compilation, Trainer, programs_folder

FROM_STEPS = 1_000
"""Fewer steps take less time than building the kernel."""


def mlp_compilation(networks: Iterable[MLP], inner_steps: int = 0, shots: tuple[int, ...] = ()) -> Compilation:
    """Return when compiling pays for the training of these networks.

    Args:
        networks: every network that is trained.
        inner_steps: of MAML; 0 for training without an inner loop.
        shots: every K that is trained for; none without an inner loop.
    """
    served = all(is_low_rank(network.sizes, inner_steps, k) for network in networks for k in shots)
    return Compilation(FROM_STEPS, _obstacle) if served else SMALL_LEARNER


def _obstacle(folder: Path) -> str | None:
    """Return why neither the kernel nor a program can be had; PyTorch's compiler stands in for the kernel."""
    return None if kernel_obstacle(folder) is None else obstacle(folder)


def with_mlp_kernel(backend: Backend, trainer: Trainer) -> Backend:
    """Return what repeats the meta-step: the kernel where it serves and compiled code is wanted, else ``backend``."""
    return partial(fuse, folder=programs_folder(), otherwise=backend) if trainer.backend == "compiled" else backend
