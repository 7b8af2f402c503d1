"""MAML for fully connected networks: whole chunks of meta-steps in one kernel for the CPU, Adam included.

The kernel never forms a task's adapted parameters. A gradient of a fully connected layer is a sum over examples of
outer products, so after some inner steps r a layer's weight is ``W - rate sum_r D_r' A_r``, with A_r the layer's inputs
and D_r the errors of its outputs, one row an example. Products with it are products with W, which all tasks share, and
with small matrices of examples by examples; the same holds for the Hessian of the second-order term. mlp_kernel.cpp
has the derivation.
"""

import ctypes
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from metalib.compilation import Backend, Program, Step, native
from metalib.compilation.repeat import at
from metalib.losses import Batch, Episode, Loss, MeanSquaredError
from metalib.meta_training.adam import Adam, AdamState
from metalib.meta_training.objectives import LossWithoutAdaptation, QueryLossAfterAdaptation
from metalib.meta_training.supervised import MetaStep, TrainingState
from metalib.networks import MLPNetwork
from metalib.update_rules import GradientDescent

SOURCE = Path(__file__).with_name("mlp_kernel.cpp")


class _Problem(NamedTuple):
    """A meta-step as the kernel does it; ``sizes`` of the network's layers from input to output."""

    adam: Adam
    sizes: tuple[int, ...]
    data: type[Batch] | type[Episode]
    inner_steps: int = 0
    inner_rate: float = 0.0
    first_order: bool = False

    @property
    def n_parameters(self) -> int:
        return sum((n_in + 1) * n_out for n_in, n_out in pairwise(self.sizes))


def fuse(step: Step, state: Any, data: Any, folder: Path, otherwise: Backend) -> Program:
    """Return ``step`` repeated over the leading axis of its data: by the kernel, if it serves this step and pays.

    It serves the :class:`MetaStep` of the mean squared error of an :class:`MLPNetwork`, with gradient descent on the
    whole support or without an inner loop, and with Adam without a bound on the gradient, in float32 on the CPU; it
    pays where :func:`is_low_rank` says so. Results agree with those of other backends to rounding.

    The program raises ``ValueError`` if it is given other shapes than those of the examples, and ``MemoryError`` if
    there is no room for a task.

    Args:
        step: one step of the outer loop.
        state: an example of the :class:`TrainingState`.
        data: an example of the data of one step, a Batch or an Episode ``[seeds, tasks, ...]``.
        folder: where the kernel is kept between runs.
        otherwise: what repeats other steps, and all of them where the kernel cannot be built.
    """
    problem = _problem(step)
    if problem is None or not _fits(problem, state, data) or (kernel := _kernel(folder)) is None:
        return otherwise(step, state, data)
    shapes = _shapes(state, data)

    def program(state: TrainingState, data: Batch | Episode) -> tuple[TrainingState, Tensor]:
        steps = len(tree_leaves(data)[0])
        given = _shapes(state, at(data, 0)) if steps else shapes
        if given != shapes:
            raise ValueError(f"the program is for shapes {shapes}, and was given {given}")
        return _repeat(kernel, problem, state, data)

    return program


def is_low_rank(sizes: tuple[int, ...], inner_steps: int, shots: int) -> bool:
    """Whether the inner loop changes weights by a rank of at most the widest hidden layer's width, so that it pays.

    Args:
        sizes: of the network's layers, from input to output.
        inner_steps: T.
        shots: K, the examples of the support; the change has a rank of at most T K.
    """
    return inner_steps == 0 or inner_steps * shots <= max(sizes[1:-1], default=0)


def kernel_obstacle(folder: Path) -> str | None:
    """Return why the kernel cannot be built here and kept in ``folder``; None if it can."""
    return native.obstacle(SOURCE, folder)


def _kernel(folder: Path) -> ctypes.CDLL | None:
    """Return mlp_kernel.cpp as a library; None if it cannot be built here."""
    cxx = native.compiler()
    return None if cxx is None else native.load(SOURCE, folder, cxx)


def _problem(step: Step) -> _Problem | None:
    """Return what the kernel has to do for a step; None if it does not serve it.

    Exact types, for a class made from one of them may compute something else.
    """
    if type(step) is not MetaStep or type(step.adam) is not Adam or step.adam.clip_norm is not None:
        return None
    objective = step.objective
    if type(objective) is LossWithoutAdaptation and (sizes := _sizes(objective.loss)):
        return _Problem(step.adam, sizes, Batch)
    if type(objective) is not QueryLossAfterAdaptation or not objective.learned_start:
        return None
    rule, sizes = objective.rule, _sizes(objective.loss)
    if type(rule) is not GradientDescent or sizes is None:
        return None
    return _Problem(step.adam, sizes, Episode, objective.inner_steps, rule.rate, rule.first_order)


def _sizes(loss: Loss) -> tuple[int, ...] | None:
    """Return the sizes of the layers of a loss's network; None if the kernel does not serve it."""
    network = loss.network if type(loss) is MeanSquaredError else None
    return network.sizes if type(network) is MLPNetwork else None


def _fits(problem: _Problem, state: TrainingState, data: Any) -> bool:
    """Whether state and data of a step are for the kernel, and few enough examples for it to pay."""
    if type(data) is not problem.data:
        return False
    (support, query), tensors = _examples(data), (*state[:1], *state.adam[:2], *tree_leaves(data))
    if not all(t.dtype == torch.float32 and t.device.type == "cpu" for t in tensors):
        return False
    seeds, tasks, shots, _ = support.x.shape if support.x.ndim == 4 else (0, 0, 0, 0)
    n_in, n_out, queries = problem.sizes[0], problem.sizes[-1], query.x.shape[-2]
    expected: list[tuple[int, ...]] = [(seeds, problem.n_parameters)] * 3
    expected += [(seeds, tasks, n, width) for n in (shots, queries) for width in (n_in, n_out)]
    found = [tuple(t.shape) for t in (*tensors[:3], *support, *query)]
    return found == expected and is_low_rank(problem.sizes, problem.inner_steps, shots)


def _shapes(state: TrainingState, data: Batch | Episode) -> list[tuple[tuple[int, ...], torch.dtype]]:
    """Return shape and kind of every tensor of a state and the data of one step."""
    return [(tuple(leaf.shape), leaf.dtype) for leaf in tree_leaves((state, data))]


def _examples(data: Batch | Episode) -> tuple[Batch, Batch]:
    """Return support and query; without an inner loop there is no support."""
    if isinstance(data, Episode):
        return data.support, data.query
    return Batch(data.x[..., :0, :], data.y[..., :0, :]), data


def _repeat(
    kernel: ctypes.CDLL, problem: _Problem, state: TrainingState, data: Batch | Episode
) -> tuple[TrainingState, Tensor]:
    """Return the state after a meta-step for each of ``data`` ``[steps, seeds, tasks, ...]``, and their losses."""
    examples = [tensor.contiguous() for batch in _examples(data) for tensor in batch]
    (steps, seeds, tasks, shots, _), queries = examples[0].shape, examples[2].shape[-2]
    sizes, adam = problem.sizes, problem.adam
    counts = (len(sizes) - 1, steps, seeds, tasks, shots, queries, problem.inner_steps, problem.first_order)
    corrections = [each.float() for each in adam.corrections(state.adam.step + torch.arange(steps))]
    # Copies, for the kernel writes in what it is given.
    moved = [t.clone(memory_format=torch.contiguous_format) for t in (state.phi, state.adam.first, state.adam.second)]
    losses = torch.empty(steps, seeds)
    failed = kernel.mlp_meta_steps(
        (ctypes.c_int64 * len(counts))(*counts),
        (ctypes.c_int64 * len(sizes))(*sizes),
        (ctypes.c_double * 4)(problem.inner_rate, adam.beta1, adam.beta2, adam.epsilon),
        *(ctypes.c_void_p(tensor.data_ptr()) for tensor in (*corrections, *examples, *moved, losses)),
    )
    if failed:
        raise MemoryError(f"not enough memory for tasks of {shots} and {queries} examples and layers of {sizes}")
    phi, first, second = moved
    return TrainingState(phi, AdamState(first, second, state.adam.step + steps)), losses
