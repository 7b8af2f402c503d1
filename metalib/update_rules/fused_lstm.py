"""The LSTM meta-learner with its step, forward and backward, in one kernel for the CPU."""

import ctypes
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from metalib.compilation import native
from metalib.update_rules.lstm import LSTMRule, LSTMState
from metalib.update_rules.protocol import UpdateRule

SOURCE = Path(__file__).with_name("lstm_kernel.cpp")


def fused(rule: LSTMRule, folder: Path) -> UpdateRule:
    """Return the rule with a fast step; ``rule`` itself where the kernel cannot be built for lack of a compiler.

    Args:
        rule: what is computed; results agree to rounding.
        folder: where the kernel is kept between runs.
    """
    return rule if _kernel(folder) is None else FusedLSTMRule(rule, folder)


def kernel_obstacle(folder: Path) -> str | None:
    """Return why the kernel cannot be built here and kept in ``folder``; None if it can."""
    return native.obstacle(SOURCE, folder)


@functools.cache
def _kernel(folder: Path) -> ctypes.CDLL | None:
    """Return lstm_kernel.cpp as a library; None if it cannot be built here."""
    cxx = native.compiler()
    return None if cxx is None else native.load(SOURCE, folder, cxx)


@dataclass(frozen=True)
class FusedLSTMRule:
    """An :class:`LSTMRule` whose step runs in ``lstm_kernel.cpp``. Made by :func:`fused`.

    Differs from the plain rule in the layout of its memory: hidden and cell state are ``[hidden_size, n]``, so that
    neighbours in memory are coordinates, which the kernel treats alike. What is not float32 on the CPU, or is being
    traced into a program, is left to the plain rule.
    """

    rule: LSTMRule
    folder: Path

    @property
    def first_order(self) -> bool:
        """Whether gradient and loss are constants, as of the plain rule."""
        return self.rule.first_order

    @property
    def n_omega(self) -> int:
        """The number of weights, as of the plain rule."""
        return self.rule.n_omega

    def initial_omega(self, generator: torch.Generator) -> Tensor:
        """Draw omega as the plain rule does."""
        return self.rule.initial_omega(generator)

    def initial_state(self, theta: Tensor) -> LSTMState:
        """Return the empty memory of every coordinate of ``theta`` ``[n]``."""
        memory = theta.new_zeros(self.rule.hidden_size, *theta.shape)
        return LSTMState(memory, memory, torch.zeros_like(theta), torch.zeros_like(theta))

    def step(
        self, omega: Tensor, theta: Tensor, gradient: Tensor, loss: Tensor, state: LSTMState
    ) -> tuple[Tensor, LSTMState]:
        """Return theta and memory after one step; shapes as in the protocol, of hidden and cell state as above."""
        tensors = (omega, theta, gradient, loss, *state)
        if get_proxy_mode() is None and all(t.dtype == torch.float32 and t.device.type == "cpu" for t in tensors):
            theta, *memory = _Step.apply(self, *tensors)
            return theta, LSTMState(*memory)
        plain = LSTMState(state.hidden.mT, state.cell.mT, state.forget, state.input)
        theta, (hidden, cell, forget, input_) = self.rule.step(omega, theta, gradient, loss, plain)
        return theta, LSTMState(hidden.mT, cell.mT, forget, input_)

    def gates(self, state: LSTMState) -> tuple[Tensor, Tensor]:
        """Return the forget and input gates ``[n]`` of the step that gave ``state``."""
        return self.rule.gates(state)

    def to_dict(self) -> dict[str, Any]:
        """Return the plain rule's description: how it is computed is no property of what it learns."""
        return self.rule.to_dict()


class _Step(torch.autograd.Function):
    """One step of the physical tensors: omega ``[*seeds, n_omega]``, the others ``[*seeds, *tasks, ...]``."""

    @staticmethod
    def forward(rule: FusedLSTMRule, *inputs: Tensor) -> tuple[Tensor, ...]:
        _, theta, _, _, *state = inputs
        outputs = [t.new_empty(t.shape) for t in (theta, *state)]
        _call(rule, "lstm_forward", inputs, outputs)
        return tuple(outputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.rule = inputs[0]
        ctx.save_for_backward(*inputs[1:], *output[3:])

    @staticmethod
    def backward(ctx: Any, *d_outputs: Tensor) -> tuple[Tensor | None, ...]:
        d_omega, d_theta, *d_state, d_gradient, d_loss = _Backward.apply(ctx.rule, *ctx.saved_tensors, *d_outputs)
        if ctx.rule.first_order:
            return None, d_omega, d_theta, None, None, *d_state
        return None, d_omega, d_theta, d_gradient, d_loss, *d_state

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], rule: FusedLSTMRule, omega: Tensor, *others: Tensor) -> Any:
        # An axis that omega has comes first (seeds); one that it has not goes after those that it has (tasks).
        place = omega.ndim - 1 if in_dims[1] is None else 0
        omega = omega if in_dims[1] is None else omega.movedim(in_dims[1], 0)
        moved = [_with_axis(t, dim, place, info.batch_size) for t, dim in zip(others, in_dims[2:], strict=True)]
        return _Step.apply(rule, omega, *moved), (place,) * 5


class _Backward(torch.autograd.Function):
    """The derivatives of a step's omega, theta, state, gradient and loss from those of its results.

    Not differentiable itself. Those of gradient and loss are left out, and empty, where they are constants.
    """

    @staticmethod
    def forward(rule: FusedLSTMRule, *tensors: Tensor) -> tuple[Tensor, ...]:
        inputs, outputs, d_outputs = tensors[:8], tensors[8:10], tensors[10:]
        omega, theta, gradient, loss, *state = inputs
        d_omega, *d_inputs = (t.new_empty(t.shape) for t in (omega, theta, *state))
        d_given = [None, None] if rule.first_order else [t.new_empty(t.shape) for t in (gradient, loss)]
        _call(rule, "lstm_backward", inputs, outputs, d_outputs, d_inputs, [d_omega], d_given)
        # One result for each, because vmap counts them; an empty one has the axes of the batch.
        return d_omega, *d_inputs, *(theta.new_empty(*theta.shape[:-1], 0) if d is None else d for d in d_given)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        pass

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], rule: FusedLSTMRule, *tensors: Tensor) -> Any:
        # Each sample has its own derivative of omega.
        moved = [_with_axis(t, dim, 0, info.batch_size) for t, dim in zip(tensors, in_dims[1:], strict=True)]
        return _Backward.apply(rule, *moved), (0,) * 8


def _with_axis(tensor: Tensor, dim: int | None, place: int, size: int) -> Tensor:
    """Return the tensor with its axis ``dim`` at ``place``; None for one that is the same for all."""
    if dim is not None:
        return tensor.movedim(dim, place)
    return tensor.unsqueeze(place).expand(*tensor.shape[:place], size, *tensor.shape[place:])


def _call(rule: FusedLSTMRule, function: str, inputs: Sequence[Tensor], *others: Sequence[Tensor | None]) -> None:
    """Call a function of the kernel with its groups of tensors, in which it also writes."""
    omega, theta, gradient, loss, *state = inputs
    _refuse_other_shapes(rule, inputs)
    seeds, batch = math.prod(omega.shape[:-1]), math.prod(theta.shape[:-1])
    logits = rule.rule.feedback == "logits"
    sizes = (ctypes.c_int64 * 5)(seeds, batch // max(seeds, 1), theta.shape[-1], rule.rule.hidden_size, logits)
    groups = [(omega, gradient, loss), (theta, *state), *others]
    # Held in a list, because contiguous copies must live until the kernel is done; what it writes in is contiguous.
    groups = [[tensor if tensor is None else tensor.contiguous() for tensor in group] for group in groups]
    pointers = [(ctypes.c_void_p * len(group))(*(t if t is None else t.data_ptr() for t in group)) for group in groups]
    getattr(_kernel(rule.folder), function)(sizes, *pointers)


def _refuse_other_shapes(rule: FusedLSTMRule, inputs: Sequence[Tensor]) -> None:
    """Refuse what would make the kernel read beyond its tensors."""
    omega, theta = inputs[:2]
    *batch, n = theta.shape
    memory = (*batch, rule.rule.hidden_size, n)
    expected = [(*batch[: omega.ndim - 1], rule.n_omega), (*batch, n), (*batch, n), (*batch,), memory, memory]
    expected += [(*batch, n)] * 2
    shapes = [tuple(tensor.shape) for tensor in inputs]
    if shapes != expected:
        names = ("omega", "theta", "gradient", "loss", *LSTMState._fields)
        wrong = [f"{name} {s}, not {e}" for name, s, e in zip(names, shapes, expected, strict=True) if s != e]
        raise ValueError(f"the fused LSTM step was given {'; '.join(wrong)}")
