"""Which contenders there are; importing this imports none of their libraries."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Run = Callable[[Any, Any], Any]
"""``(theta [seeds, n_parameters], episodes [steps, seeds, tasks, ...]) -> theta`` after these meta-steps."""

Prepare = Callable[[Any, Any, Any, Path], Run]
"""``(problem, example theta, example episodes, folder) -> Run``; compiled for the example's shapes, if at all."""


@dataclass(frozen=True)
class Contender:
    """One implementation.

    Args:
        label: its name in tables.
        packages: what must be importable beside metalib's own requirements.
        steps: meta-steps a call; fewer where a step is slow.
        compiles: whether it compiles something ahead.
        needs_cxx: whether it compiles with a C++ compiler.
    """

    label: str
    packages: tuple[str, ...]
    steps: int
    compiles: bool = False
    needs_cxx: bool = False


CONTENDERS = {
    "metalib_fused": Contender("metalib: kernel", (), 100, compiles=True, needs_cxx=True),
    "metalib_compiled": Contender("metalib: compiled by PyTorch", (), 100, compiles=True, needs_cxx=True),
    "jax_scan": Contender("JAX: jit, scan, vmap", ("jax", "optax"), 100, compiles=True),
    "metalib_eager": Contender("metalib: eager", (), 50),
    "torch_loop": Contender("PyTorch: autograd, a loop over tasks", (), 10),
    "higher_loop": Contender("higher: a loop over tasks", ("higher",), 10),
    "torchopt_loop": Contender("TorchOpt: a loop over tasks", ("torchopt",), 10),
}
REFERENCE = "metalib_fused"
