"""The kernel of fully connected networks, for the stages that train them."""

from collections.abc import Iterable
from functools import partial

from metalib.compilation import Backend
from metalib.meta_training.fused_mlp import fuse, is_low_rank, kernel_obstacle
from metalib.networks import MLP
from stages.training import SMALL_LEARNER, Compilation, Trainer, programs_folder

FROM_STEPS = 1_000
"""Fewer steps take less time than building the kernel."""


def mlp_compilation(networks: Iterable[MLP], inner_steps: int = 0, shots: tuple[int, ...] = ()) -> Compilation:
    """Return when compiling pays for MAML on these networks, once for each K in ``shots``; or with no inner loop."""
    served = all(is_low_rank(network.sizes, inner_steps, k) for network in networks for k in shots)
    return Compilation(FROM_STEPS, kernel_obstacle) if served else SMALL_LEARNER


def with_mlp_kernel(backend: Backend, trainer: Trainer) -> Backend:
    """Return what repeats the meta-step: the kernel where it serves and compiled code is wanted, else ``backend``."""
    return partial(fuse, folder=programs_folder(), otherwise=backend) if trainer.backend == "compiled" else backend
