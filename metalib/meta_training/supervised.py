"""The outer loop for labelled tasks: Adam on an objective averaged over a meta-batch of tasks."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar, cast

import torch
from torch import Tensor
from torch.func import vmap
from torch.utils._pytree import tree_map

from metalib.compilation.repeat import Backend, at, repeat_eagerly
from metalib.meta_training.adam import Adam, AdamState
from metalib.meta_training.divergence import refuse_divergence
from metalib.meta_training.objectives import Objective

CHUNK_STEPS = 100
"""Meta-steps a chunk by default; tasks are drawn, divergence is checked, curves and state are kept between chunks."""

DrawChunk = Callable[[int, int], Any]
"""``(first step, number of steps) -> tree of tensors [steps, seeds, tasks, ...]``; depends on the numbers alone."""

Tree = TypeVar("Tree")


class TrainingState(NamedTuple):
    """Where training stands, for all seeds: meta-parameters ``phi`` ``[seeds, n_phi]`` and Adam's state."""

    phi: Tensor
    adam: AdamState


class Chunk(NamedTuple):
    """What one chunk of steps gave: the new ``state``, the ``steps`` done so far, ``losses`` ``[steps, seeds]``."""

    state: TrainingState
    steps: int
    losses: Tensor


def train(
    objective: Objective,
    adam: Adam,
    state: TrainingState,
    draw: DrawChunk,
    n_steps: int,
    seeds: tuple[int, ...],
    first_step: int = 0,
    backend: Backend = repeat_eagerly,
    chunk_steps: int = CHUNK_STEPS,
) -> Iterator[Chunk]:
    """Train for meta-steps ``first_step`` to ``n_steps`` and yield after every chunk of them.

    A meta-step moves each seed's phi by Adam along the gradient of the mean of ``objective`` over that
    seed's meta-batch. Seeds are independent runs that share the arithmetic's batches. A run that starts
    from the state of an earlier chunk repeats the same program on the same data, so it gives the same bytes.

    Args:
        objective: what is minimised, of one task.
        adam: the optimiser's settings.
        state: where training starts, see :func:`initial_state`.
        draw: the training data of a chunk.
        n_steps: number of meta-steps in all.
        seeds: the seeds' names, for messages.
        first_step: meta-steps done before, a multiple of ``chunk_steps``.
        backend: how a chunk's steps are run.
        chunk_steps: meta-steps a chunk; what is drawn for a step depends on it.

    Raises:
        DivergenceError: a loss is not finite; the message names step, seed and likely cause.
    """
    program = None
    for first in range(first_step, n_steps, chunk_steps):
        data = draw(first, min(chunk_steps, n_steps - first))
        if program is None:
            program = backend(MetaStep(objective, adam), state, at(data, 0))
        state, losses = program(state, data)
        refuse_divergence(losses, first, seeds)
        yield Chunk(state, first + len(losses), losses)


def initial_state(phi: Tensor, adam: Adam) -> TrainingState:
    """Return the state before the first meta-step, from ``phi`` ``[seeds, n_phi]``."""
    return TrainingState(phi, adam.initial_state(phi))


@dataclass(frozen=True)
class MetaStep:
    """A step of the outer loop; a value, so that a backend can see what it is to repeat.

    Args:
        objective: what is minimised, of one task.
        adam: the optimiser's settings.
    """

    objective: Objective
    adam: Adam

    def __call__(self, state: TrainingState, data: Any) -> tuple[TrainingState, Tensor]:
        """Return the state after one meta-step and the loss before it, ``[seeds]``; data ``[seeds, tasks, ...]``."""
        gradient, losses = meta_gradient(self.objective, state.phi, data)
        phi, adam_state = self.adam.update(gradient, state.adam, state.phi)
        return TrainingState(phi, adam_state), losses


def meta_gradient(objective: Objective, phi: Tensor, data: Any) -> tuple[Tensor, Tensor]:
    """Return the gradient ``[seeds, n_phi]`` and value ``[seeds]`` of each seed's mean objective over its tasks."""
    phi = phi.detach().requires_grad_()
    over_tasks = vmap(objective, in_dims=(None, 0))
    losses = vmap(over_tasks)(phi, data).mean(dim=1)
    # A seed's loss depends on its own phi alone, so the gradient of the sum holds every seed's gradient.
    (gradient,) = torch.autograd.grad(losses.sum(), phi)
    return gradient, losses.detach()


def stack_seeds(trees: Sequence[Tree], device: torch.device | str) -> Tree:
    """Join each seed's tree of tensors ``[steps, tasks, ...]`` into one ``[steps, seeds, tasks, ...]``."""
    return cast(Tree, tree_map(lambda *leaves: torch.stack(leaves, dim=1).to(device), *trees))
