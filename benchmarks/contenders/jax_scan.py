"""JAX: ``jit`` over ``lax.scan`` over meta-steps, ``vmap`` over tasks, ``optax.adam``; float32 on the CPU."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from torch import Tensor

from benchmarks.contenders.catalogue import Run
from benchmarks.problem import Problem, to_layers, to_theta
from metalib.losses import Episode

Layers = list[tuple[Any, Any]]


def forward(layers: Layers, x: Any) -> Any:
    """Return the network's output for ``x`` ``[n, 1]``."""
    for weight, bias in layers[:-1]:
        x = jax.nn.relu(x @ weight.T + bias)
    weight, bias = layers[-1]
    return x @ weight.T + bias


def loss(layers: Layers, batch: Any) -> Any:
    """Return the mean squared error on a batch ``(x, y)``."""
    x, y = batch
    return jnp.mean((forward(layers, x) - y) ** 2)


def prepare(problem: Problem, theta: Tensor, episodes: Episode, folder: Path) -> Run:
    """Compile the chunk of meta-steps for the example's shapes; another number of steps compiles again."""
    optimiser = optax.adam(problem.outer_rate)

    def query_loss(layers: Layers, episode: Any) -> Any:
        support, query = episode
        for _ in range(problem.inner_steps):
            gradient = jax.grad(loss)(layers, support)
            layers = jax.tree.map(lambda part, along: part - problem.inner_rate * along, layers, gradient)
        return loss(layers, query)

    def mean_query_loss(layers: Layers, episodes: Any) -> Any:
        return jnp.mean(jax.vmap(query_loss, in_axes=(None, 0))(layers, episodes))

    def step(carry: Any, episodes: Any) -> Any:
        layers, state = carry
        value, gradient = jax.value_and_grad(mean_query_loss)(layers, episodes)
        updates, state = optimiser.update(gradient, state)
        return (optax.apply_updates(layers, updates), state), value

    def chunk(layers: Layers, episodes: Any) -> Any:
        (layers, _), losses = jax.lax.scan(step, (layers, optimiser.init(layers)), episodes)
        return layers, losses

    compiled = jax.jit(chunk)

    def run(theta: Tensor, episodes: Episode) -> Tensor:
        flat = [jnp.asarray(part.numpy()) for part in to_layers(theta[0], problem)]
        data = tuple(tuple(jnp.asarray(part[:, 0].numpy()) for part in batch) for batch in episodes)
        layers, _ = jax.block_until_ready(compiled(list(zip(flat[::2], flat[1::2], strict=True)), data))
        return to_theta([torch.from_numpy(np.array(part)) for layer in layers for part in layer])

    run(theta, episodes)
    return run
