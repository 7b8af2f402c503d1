"""The meta-step derived by hand, in float64 numpy: the reference of every contender, and what the floor counts.

With A_l, Z_l, D_l the outputs, pre-activations and errors of layer l for n examples, and M_l the mask of ReLU:

    forward          Z_l = A_(l-1) W_l' + b_l
    backward         G_l = D_l' A_(l-1)                     D_(l-1) = M_(l-1) * (D_l W_l)

The meta-gradient is the query gradient v at theta_T, carried back through the inner steps by v <- v - rate H v.
H v, the derivative of the support gradient along v = (V_l, u_l), is the derivative R of the lines above (Pearlmutter
1994):

    forward          R Z_l = R A_(l-1) W_l' + A_(l-1) V_l' + u_l
    backward         R G_l = R D_l' A_(l-1) + D_l' R A_(l-1)
                     R D_(l-1) = M_(l-1) * (R D_l W_l + D_l V_l)

Reverse mode over reverse mode needs the same products in another order.
"""

from typing import Any

import numpy as np

from benchmarks.problem import Problem, layer_shapes

Array = np.ndarray[Any, np.dtype[np.float64]]
Layers = list[tuple[Array, Array]]
"""Weight ``[tasks, n_out, n_in]`` and bias ``[tasks, n_out]`` of each layer."""


class Products:
    """Matrix products that count their multiply-adds."""

    def __init__(self) -> None:
        self.multiply_adds = 0

    def __call__(self, a: Array, b: Array) -> Array:
        """Return ``a @ b``, batched over tasks."""
        result: Array = np.matmul(a, b)
        self.multiply_adds += result.size * a.shape[-1]
        return result


class Pass:
    """Forward and backward pass of the mean squared error on one batch, with all that H v needs."""

    def __init__(self, layers: Layers, x: Array, y: Array, dot: Products) -> None:
        self.layers, self.dot, self.n = layers, dot, x.shape[-2]
        self.outputs = [x]
        for index, (weight, bias) in enumerate(layers):
            z = dot(self.outputs[-1], weight.swapaxes(-1, -2)) + bias[:, None, :]
            self.outputs.append(z if index == len(layers) - 1 else np.maximum(z, 0))
        self.loss = ((self.outputs[-1] - y) ** 2).mean(axis=(-2, -1))
        self.errors = [2 * (self.outputs[-1] - y) / self.n]
        for index in range(len(layers) - 1, 0, -1):
            self.errors.insert(0, (self.outputs[index] > 0) * dot(self.errors[0], layers[index][0]))

    def gradient(self) -> Layers:
        """Return the gradient of each task's loss."""
        return [
            (self.dot(error.swapaxes(-1, -2), inputs), error.sum(axis=-2))
            for error, inputs in zip(self.errors, self.outputs[:-1], strict=True)
        ]

    def hessian_times(self, direction: Layers) -> Layers:
        """Return H v of each task's loss, for v = ``direction``."""
        dot, last = self.dot, len(self.layers) - 1
        moved: list[Array | None] = [None]  # R A_l; the inputs do not move
        for index, ((weight, _), (along, bias)) in enumerate(zip(self.layers, direction, strict=True)):
            z = dot(self.outputs[index], along.swapaxes(-1, -2)) + bias[:, None, :]
            before = moved[-1]
            z = z if before is None else z + dot(before, weight.swapaxes(-1, -2))
            moved.append(z if index == last else (self.outputs[index + 1] > 0) * z)
        error = 2 * np.asarray(moved[-1]) / self.n
        result: Layers = []
        for index in range(last, -1, -1):
            weight_part = dot(error.swapaxes(-1, -2), self.outputs[index])
            before = moved[index]
            if before is not None:
                weight_part = weight_part + dot(self.errors[index].swapaxes(-1, -2), before)
            result.insert(0, (weight_part, error.sum(axis=-2)))
            if index:
                back = dot(error, self.layers[index][0]) + dot(self.errors[index], direction[index][0])
                error = (self.outputs[index] > 0) * back
        return result


def meta_gradient(
    theta: Array, episode: tuple[Array, Array, Array, Array], problem: Problem, dot: Products
) -> tuple[Array, float]:
    """Return the gradient ``[n_parameters]`` and value of the mean query loss after adaptation.

    Args:
        theta: ``[n_parameters]``.
        episode: support x and y ``[tasks, n, 1]``, query x and y ``[tasks, m, 1]``.
        problem: its sizes and inner rate.
        dot: does and counts the products.
    """
    support_x, support_y, query_x, query_y = episode
    layers = _to_layers(theta, problem)
    passes = []
    for _ in range(problem.inner_steps):
        passes.append(Pass(layers, support_x, support_y, dot))
        layers = _move(layers, passes[-1].gradient(), problem.inner_rate)
    query = Pass(layers, query_x, query_y, dot)
    direction = query.gradient()
    for inner in reversed(passes):
        direction = _move(direction, inner.hessian_times(direction), problem.inner_rate)
    flat = [part.reshape(problem.tasks, -1) for layer in direction for part in layer]
    return np.concatenate(flat, axis=1).mean(axis=0), float(query.loss.mean())


def train(theta: Array, episodes: list[tuple[Array, Array, Array, Array]], problem: Problem) -> Array:
    """Return theta after a meta-step of Adam for each of ``episodes``."""
    first = second = np.zeros_like(theta)
    for step, episode in enumerate(episodes, start=1):
        gradient, _ = meta_gradient(theta, episode, problem, Products())
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        denominator = np.sqrt(second / (1 - 0.999**step)) + 1e-8
        theta = theta - problem.outer_rate * first / (1 - 0.9**step) / denominator
    return theta


def _to_layers(theta: Array, problem: Problem) -> Layers:
    layers: Layers = []
    start = 0
    for n_out, n_in in layer_shapes(problem):
        middle, stop = start + n_out * n_in, start + n_out * (n_in + 1)
        weight = theta[start:middle].reshape(1, n_out, n_in)
        bias = theta[middle:stop].reshape(1, n_out)
        layers.append((weight, bias))
        start = stop
    return layers


def _move(layers: Layers, along: Layers, rate: float) -> Layers:
    return [
        (weight - rate * weight_step, bias - rate * bias_step)
        for (weight, bias), (weight_step, bias_step) in zip(layers, along, strict=True)
    ]
