"""The LSTM meta-learner: an update rule that is itself learned."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

P = 10.0
"""Of the preprocessing: magnitudes below e^-P are given as they are, times e^P."""
N_INPUTS = 4

Feedback = Literal["gates", "logits"]


class LSTMState(NamedTuple):
    """Memory of each coordinate of theta (n of them).

    ``hidden`` and ``cell`` ``[n, hidden_size]`` are those of the first-layer LSTM; ``forget`` and ``input`` ``[n]``
    what the gates of the second layer are told of their previous values.
    """

    hidden: Tensor
    cell: Tensor
    forget: Tensor
    input: Tensor


class _Weights(NamedTuple):
    """The parts of omega: the first layer's weights and bias, and those of the two gates."""

    from_input: Tensor
    from_hidden: Tensor
    bias: Tensor
    forget: Tensor
    forget_bias: Tensor
    input: Tensor
    input_bias: Tensor


@dataclass(frozen=True)
class LSTMRule:
    """The meta-learner of Ravi and Larochelle (2017), sections 3.1 to 3.3, with one set of weights for all coordinates.

    theta is the cell state of a second LSTM layer, moved at step t, coordinate by coordinate, by
        theta_t = f_t * theta_{t-1} - i_t * gradient_t                            (their equation 2)
        f_t = sigmoid(W_F [h_t, theta_{t-1}, f_{t-1}] + b_F),   i_t likewise with W_I, b_I,
    where h_t is the output of an ordinary LSTM fed with the preprocessed gradient and loss (:func:`preprocess`).
    Where theta starts, their c_0, is theta_0 of the meta-parameters; f_0 = i_0 = 0.

    Args:
        hidden_size: of the first layer; the paper's is 20.
        feedback: what a gate is told of its previous value: "gates" as in the paper, or "logits", the value before
            the sigmoid, as in the released code (twitter/meta-learning-lstm).
        first_order: treat gradient and loss as constants of the meta-parameters (their "gradient independence
            assumption", section 3.4). False differentiates through them as well.
        input_bias: between what b_I is drawn at the start, so the rate of the first update: sigmoid(-4.5) is 0.011.

    Raises:
        ValueError: ``hidden_size`` is below 1, ``feedback`` is not one of the two, or ``input_bias`` no finite range.
    """

    hidden_size: int = 20
    feedback: Feedback = "gates"
    first_order: bool = True
    input_bias: tuple[float, float] = (-5.0, -4.0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "input_bias", tuple(self.input_bias))  # a list, where it comes from a file
        if self.hidden_size < 1:
            raise ValueError(f"hidden_size must be 1 or more, got {self.hidden_size}")
        if self.feedback not in ("gates", "logits"):
            raise ValueError(f"feedback must be 'gates' or 'logits', got {self.feedback!r}")
        if len(self.input_bias) != 2 or not -math.inf < self.input_bias[0] < self.input_bias[1] < math.inf:
            raise ValueError(f"input_bias must be two finite numbers, the lower first, got {self.input_bias}")

    @property
    def n_omega(self) -> int:
        """The number of weights, whatever the length of theta."""
        return sum(math.prod(shape) for shape in self._shapes)

    @property
    def _shapes(self) -> _Weights:
        """The shape of each part of omega, in the order in which they lie in it."""
        h = self.hidden_size
        shapes: Any = ((N_INPUTS, 4 * h), (h, 4 * h), (4 * h,), (h + 2,), (1,), (h + 2,), (1,))
        return _Weights(*shapes)

    def initial_omega(self, generator: torch.Generator) -> Tensor:
        """Draw omega: weights U(-0.01, 0.01), b_F ~ U(4, 5), b_I ~ U(``input_bias``), in the paper U(-5, -4).

        The gates then start near 1 and, as in the paper, near 0.01: gradient descent with a small rate.
        """
        omega = torch.rand(self.n_omega, generator=generator) * 0.02 - 0.01
        weights = self._parts(omega)
        weights.forget_bias.uniform_(4, 5, generator=generator)
        weights.input_bias.uniform_(*self.input_bias, generator=generator)
        return omega

    def _parts(self, omega: Tensor) -> _Weights:
        """Return views into omega ``[n_omega]``."""
        pieces = omega.split([math.prod(shape) for shape in self._shapes])
        return _Weights(*(piece.view(shape) for piece, shape in zip(pieces, self._shapes, strict=True)))

    def initial_state(self, theta: Tensor) -> LSTMState:
        """Return the empty memory of every coordinate of ``theta`` ``[n]``."""
        memory = theta.new_zeros(*theta.shape, self.hidden_size)
        return LSTMState(memory, memory, torch.zeros_like(theta), torch.zeros_like(theta))

    def step(
        self, omega: Tensor, theta: Tensor, gradient: Tensor, loss: Tensor, state: LSTMState
    ) -> tuple[Tensor, LSTMState]:
        """Return theta and memory after one step; shapes as in the protocol."""
        weights = self._parts(omega)
        hidden, cell = self._first_layer(weights, gradient, loss, state)
        forget = self._logits(weights.forget, weights.forget_bias, hidden, theta, state.forget)
        input_ = self._logits(weights.input, weights.input_bias, hidden, theta, state.input)
        forget_gate, input_gate = torch.sigmoid(forget), torch.sigmoid(input_)
        theta = forget_gate * theta - input_gate * gradient
        if self.feedback == "gates":
            forget, input_ = forget_gate, input_gate
        return theta, LSTMState(hidden, cell, forget, input_)

    def gates(self, state: LSTMState) -> tuple[Tensor, Tensor]:
        """Return the forget and input gates ``[n]`` of the step that gave ``state``."""
        if self.feedback == "gates":
            return state.forget, state.input
        return torch.sigmoid(state.forget), torch.sigmoid(state.input)

    def _first_layer(
        self, weights: _Weights, gradient: Tensor, loss: Tensor, state: LSTMState
    ) -> tuple[Tensor, Tensor]:
        """Return hidden and cell state ``[n, hidden_size]`` of the first-layer LSTM."""
        # The loss is one for all coordinates, so its share of the product is computed once.
        of_gradient = preprocess(gradient) @ weights.from_input[:2]
        of_loss = preprocess(loss) @ weights.from_input[2:]
        total = of_gradient + state.hidden @ weights.from_hidden + (of_loss + weights.bias)
        input_, forget, candidate, output = total.chunk(4, dim=-1)
        cell = torch.sigmoid(forget) * state.cell + torch.sigmoid(input_) * torch.tanh(candidate)
        return torch.sigmoid(output) * torch.tanh(cell), cell

    @staticmethod
    def _logits(weight: Tensor, bias: Tensor, hidden: Tensor, theta: Tensor, previous: Tensor) -> Tensor:
        """Return ``W [h_t, theta_{t-1}, previous] + b`` for every coordinate, ``[n]``."""
        return hidden @ weight[:-2] + weight[-2] * theta + weight[-1] * previous + bias

    def to_dict(self) -> dict[str, Any]:
        """Return the rule as plain data."""
        return {"kind": "lstm", **asdict(self)}


def preprocess(x: Tensor) -> Tensor:
    """Return two inputs for each number, ``[..., 2]`` (Ravi and Larochelle 2017, section 3.3, after Andrychowicz 2016).

    (log|x| / p, sign x) where |x| >= e^-p, and (-1, e^p x) below, with p = 10: magnitude and sign of numbers of any
    scale, without the pole of the logarithm at 0.
    """
    magnitude = x.abs()
    large = magnitude >= math.exp(-P)
    # The logarithm is kept off 0 on the branch not taken, where its derivative would be infinite.
    log = torch.log(magnitude.clamp(min=math.exp(-P))) / P
    first = torch.where(large, log, -1.0)
    second = torch.where(large, torch.sign(x), math.exp(P) * x)
    return torch.stack([first, second], dim=-1)
