"""Adam as a pure function of flat vectors, so that it fuses into the meta-step and batches over seeds."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class AdamState(NamedTuple):
    """Running moments ``first`` and ``second``, shaped as the parameters, and ``step``, a scalar count."""

    first: Tensor
    second: Tensor
    step: Tensor


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma and Ba 2015, algorithm 1), numerically that of ``torch.optim.Adam``.

    With gradient g at step t:
        m <- beta1 m + (1 - beta1) g,   v <- beta2 v + (1 - beta2) g^2,
        parameters <- parameters - learning_rate m' / (sqrt(v') + epsilon),
    where m' = m / (1 - beta1^t) and v' = v / (1 - beta2^t). With ``clip_norm``, g is first scaled down to that
    norm where it is longer, as ``torch.nn.utils.clip_grad_norm_`` does. With ``cosine_steps`` N, the learning rate is
    constant for the first ``constant_steps`` C; that of step C + t is then learning_rate (1 + cos(pi (t - 1) / N)) / 2
    (Loshchilov and Hutter 2017, equation 5, without restarts), and 0 from t = N + 1 on.

    Args:
        learning_rate: above 0; with ``cosine_steps`` that of the first step.
        beta1, beta2: decay of the moments, in [0, 1).
        epsilon: added to the denominator, above 0.
        clip_norm: the largest norm of a gradient vector (its last axis); None for no bound.
        cosine_steps: the steps over which the learning rate falls to 0; None for a constant one.
        constant_steps: steps before it begins to fall.
    """

    learning_rate: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    clip_norm: float | None = None
    cosine_steps: int | None = None
    constant_steps: int = 0

    def initial_state(self, parameters: Tensor) -> AdamState:
        """Return the state before the first step, for parameters of any shape."""
        step = torch.zeros((), dtype=torch.float64, device=parameters.device)
        return AdamState(torch.zeros_like(parameters), torch.zeros_like(parameters), step)

    def update(self, gradient: Tensor, state: AdamState, parameters: Tensor) -> tuple[Tensor, AdamState]:
        """Return parameters and state after one step; all shapes as ``parameters``."""
        gradient = gradient if self.clip_norm is None else _clip(gradient, self.clip_norm)
        first = self.beta1 * state.first + (1 - self.beta1) * gradient
        second = self.beta2 * state.second + (1 - self.beta2) * gradient * gradient
        rate, correction = (number.to(parameters.dtype) for number in self.corrections(state.step))
        denominator = torch.sqrt(second) / correction + self.epsilon
        return parameters - rate * first / denominator, AdamState(first, second, state.step + 1)

    def corrections(self, done: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``rate_t / (1 - beta1^t)`` and ``sqrt(1 - beta2^t)`` of the step t that follows ``done`` steps.

        Elementwise, for ``done`` of any shape; rate_t is the learning rate of that step, lowered where it decays.
        """
        step = done + 1
        return self._rate(done) / (1 - self.beta1**step), torch.sqrt(1 - self.beta2**step)

    def _rate(self, done: Tensor) -> Tensor | float:
        """Return the learning rate after ``done`` steps."""
        if self.cosine_steps is None:
            return self.learning_rate
        share = ((done - self.constant_steps) / self.cosine_steps).clamp(0.0, 1.0)
        return self.learning_rate * (1 + torch.cos(math.pi * share)) / 2


def _clip(gradient: Tensor, norm: float) -> Tensor:
    """Scale every vector of the last axis that is longer than ``norm`` down to it."""
    length = gradient.square().sum(dim=-1, keepdim=True).sqrt()
    return gradient * (norm / (length + 1e-6)).clamp(max=1.0)
