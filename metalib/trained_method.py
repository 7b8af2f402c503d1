"""What training leaves behind, on disk and in a notebook: the talk's f(D_train, x) -> y."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metalib import networks
from metalib.adaptation import adapt
from metalib.losses import Batch, mean_squared_error
from metalib.meta_parameters import split
from metalib.networks import MLP
from metalib.storage import StorageError, load_tensors, save_tensors
from metalib.update_rules import GradientDescent, UpdateRule

_SCHEMA = "trained method 1"

Predictor = Callable[[Tensor], Tensor]
"""``x [n, d_in] -> y [n, d_out]``"""


@dataclass(frozen=True)
class Learner:
    """One trained learner: a network, where it starts, how it moves and for how many steps.

    >>> learner = TrainedMethod.load("artifacts/sinusoid/maml/k10.safetensors").learner()  # doctest: +SKIP
    >>> predict = learner.adapt(x_support, y_support)  # doctest: +SKIP
    >>> predict(x_new)  # doctest: +SKIP
    """

    architecture: MLP
    theta: Tensor
    omega: Tensor
    rule: UpdateRule
    steps: int

    def adapt(self, x: Tensor, y: Tensor, steps: int | None = None) -> Predictor:
        """Adapt to a task from its examples and return the adapted function.

        Args:
            x: support inputs ``[k, d_in]``.
            y: support targets ``[k, d_out]``.
            steps: inner steps; by default those of meta-training. 0 returns the unadapted function.

        Raises:
            ValueError: the shapes do not fit the network, or ``steps`` is negative.
        """
        steps = self.steps if steps is None else steps
        sizes = self.architecture.sizes
        if steps < 0:
            raise ValueError(f"steps must be 0 or more, got {steps}")
        if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or x.shape[1] != sizes[0] or y.shape[1] != sizes[-1]:
            raise ValueError(
                f"x must be [k, {sizes[0]}] and y [k, {sizes[-1]}], got {list(x.shape)} and {list(y.shape)}"
            )
        network = self.architecture.network()
        batches = [Batch(x, y)] * steps
        theta = adapt(mean_squared_error(network), self.rule, self.omega, self.theta, batches)[-1].detach()
        return lambda inputs: network(theta, inputs)


@dataclass(frozen=True)
class TrainedMethod:
    """The meta-parameters of one method, for all its seeds.

    Args:
        method: maml, pretrained, oracle or scratch.
        architecture: the network.
        phi: meta-parameters, ``[seeds, n_phi]``.
        seeds: the seed of each row.
        rule: how it adapts; None if that is to be chosen (baselines) or it does not (oracle).
        inner_steps: inner steps of meta-training; 0 for baselines.
        train_shots: K of meta-training; None for methods that are not trained per K.
        settings: what training was told, and the versions and device that its bytes depend on.
    """

    method: str
    architecture: MLP
    phi: Tensor
    seeds: tuple[int, ...]
    rule: UpdateRule | None
    inner_steps: int
    train_shots: int | None
    settings: dict[str, Any]

    def learner(self, index: int = 0, rule: UpdateRule | None = None) -> Learner:
        """Return the learner of one seed.

        Args:
            index: which of the seeds, from 0.
            rule: how it adapts; needed for baselines, which bring no rule of their own.

        Raises:
            ValueError: no such seed, or no rule.
        """
        if not 0 <= index < len(self.seeds):
            raise ValueError(f"index must be from 0 to {len(self.seeds) - 1}, got {index}")
        rule = rule or self.rule
        if rule is None:
            raise ValueError(f"{self.method} brings no update rule; pass one, e.g. rule=GradientDescent(0.01)")
        theta, omega = split(self.phi[index], rule)
        return Learner(self.architecture, theta, omega, rule, max(self.inner_steps, 1))

    def save(self, path: Path | str) -> None:
        """Write the method to one safetensors file."""
        header = {
            "method": self.method,
            "network": self.architecture.to_dict(),
            "seeds": list(self.seeds),
            "rule": self.rule.to_dict() if self.rule else None,
            "inner_steps": self.inner_steps,
            "train_shots": self.train_shots,
            "settings": self.settings,
        }
        save_tensors(Path(path), _SCHEMA, {"phi": self.phi}, header)

    @classmethod
    def load(cls, path: Path | str) -> "TrainedMethod":
        """Return the method that :meth:`save` wrote.

        Raises:
            StorageError: the file is missing, damaged or of another kind.
        """
        tensors, header = load_tensors(Path(path), _SCHEMA)
        rule = dict(header["rule"]) if header["rule"] else None
        if rule is not None and rule.pop("kind") != "gradient_descent":
            raise StorageError(f"{path}: unknown update rule; known: gradient_descent")
        return cls(
            method=header["method"],
            architecture=networks.from_dict(header["network"]),
            phi=tensors["phi"],
            seeds=tuple(header["seeds"]),
            rule=GradientDescent(**rule) if rule else None,
            inner_steps=header["inner_steps"],
            train_shots=header["train_shots"],
            settings=header["settings"],
        )


def versions(device: torch.device, backend: str) -> dict[str, str]:
    """Return what the bytes of a result depend on beside code and settings: versions, kind of device, backend."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return {"python": python, "torch": torch.__version__.split("+")[0], "device": device.type, "backend": backend}
