"""What training leaves behind, on disk and in a notebook: the talk's f(D_train, x) -> y."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metalib import networks, update_rules
from metalib.adaptation import adapt
from metalib.losses import LOSSES, Batch
from metalib.meta_parameters import split
from metalib.networks import Architecture
from metalib.storage import StorageError, load_tensors, save_tensors
from metalib.update_rules import UpdateRule

_SCHEMA = "trained method 2"

Predictor = Callable[[Tensor], Tensor]
"""``x [n, ...] -> y [n, n_outputs]``; in classification the outputs are logits."""


@dataclass(frozen=True)
class Learner:
    """One trained learner: a network, where it starts, how it moves and for how many steps.

    >>> learner = TrainedMethod.load("artifacts/sinusoid/maml/k10.safetensors").learner()  # doctest: +SKIP
    >>> predict = learner.adapt(x_support, y_support)  # doctest: +SKIP
    >>> predict(x_new)  # doctest: +SKIP
    """

    architecture: Architecture
    loss: str
    theta: Tensor
    omega: Tensor
    rule: UpdateRule
    steps: int

    def adapt(self, x: Tensor, y: Tensor, steps: int | None = None) -> Predictor:
        """Adapt to a task from its examples and return the adapted function.

        Args:
            x: support inputs ``[k, *input_shape]`` of the network: bytes of images, or numbers of any type.
            y: support targets: ``[k, n_outputs]`` in regression, class numbers ``[k]`` in classification.
            steps: inner steps; by default those of meta-training. 0 returns the unadapted function.

        Raises:
            ValueError: the shapes do not fit the network, or ``steps`` is negative.
        """
        steps = self.steps if steps is None else steps
        if steps < 0:
            raise ValueError(f"steps must be 0 or more, got {steps}")
        self._refuse_misfit(x, y)
        network = self.architecture.network()
        targets = y.long() if self.loss == "cross_entropy" else y.to(self.theta.dtype)
        batches = [Batch(self._inputs(x), targets)] * steps
        theta = adapt(LOSSES[self.loss](network), self.rule, self.omega, self.theta, batches)[-1].detach()
        return lambda inputs: network(theta, self._inputs(inputs))

    def _inputs(self, x: Tensor) -> Tensor:
        """Return inputs in the parameters' type; bytes stay, for networks of images take them."""
        return x if x.dtype == torch.uint8 else x.to(self.theta.dtype)

    def _refuse_misfit(self, x: Tensor, y: Tensor) -> None:
        inputs, n_outputs = list(self.architecture.input_shape), self.architecture.n_outputs
        n = len(x)
        if self.loss == "cross_entropy":
            fits = list(y.shape) == [n] and not y.is_floating_point() and bool(((y >= 0) & (y < n_outputs)).all())
            wanted = f"y class numbers [k] from 0 to {n_outputs - 1}"
        else:
            fits = list(y.shape) == [n, n_outputs]
            wanted = f"y [k, {n_outputs}]"
        if n == 0 or list(x.shape[1:]) != inputs or not fits:
            shape = ", ".join(["k", *map(str, inputs)])
            raise ValueError(f"x must be [{shape}] and {wanted}, got {list(x.shape)} and {y.dtype} {list(y.shape)}")


@dataclass(frozen=True)
class TrainedMethod:
    """The meta-parameters of one method, for all its seeds.

    Args:
        method: maml, lstm, pretrained, oracle, scratch or prototypical.
        architecture: the network.
        loss: what it minimises, of :data:`metalib.losses.LOSSES`.
        phi: meta-parameters, ``[seeds, n_phi]``.
        seeds: the seed of each row.
        rule: how it adapts; None if that is to be chosen (baselines) or it does not (oracle).
        inner_steps: inner steps of meta-training; 0 for baselines.
        train_shots: K of meta-training; None for methods that are not trained per K.
        settings: what training was told, and the versions and device that its bytes depend on.
    """

    method: str
    architecture: Architecture
    loss: str
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
        return Learner(self.architecture, self.loss, theta, omega, rule, max(self.inner_steps, 1))

    def save(self, path: Path | str) -> None:
        """Write the method to one safetensors file."""
        header = {
            "method": self.method,
            "network": self.architecture.to_dict(),
            "loss": self.loss,
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
            StorageError: the file is missing, damaged or of another kind, or its parameters do not fit its network.
        """
        tensors, header = load_tensors(Path(path), _SCHEMA)
        try:
            loaded = cls(
                method=header["method"],
                architecture=networks.from_dict(header["network"]),
                loss=header["loss"],
                phi=tensors["phi"],
                seeds=tuple(header["seeds"]),
                rule=update_rules.from_dict(header["rule"]) if header["rule"] else None,
                inner_steps=header["inner_steps"],
                train_shots=header["train_shots"],
                settings=header["settings"],
            )
        except (ValueError, TypeError, KeyError) as error:
            raise StorageError(f"{path}: {error}; it was written by another version: run `dvc repro`") from error
        n_parameters = loaded.architecture.network().n_parameters
        wanted = [len(loaded.seeds), n_parameters + (loaded.rule.n_omega if loaded.rule else 0)]
        if list(loaded.phi.shape) != wanted:
            raise StorageError(
                f"{path}: parameters of shape {list(loaded.phi.shape)} are not {wanted}; run `dvc repro`"
            )
        return loaded


def versions(device: torch.device, backend: str) -> dict[str, str]:
    """Return what the bytes of a result depend on beside code and settings: versions, kind of device, backend."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return {"python": python, "torch": torch.__version__.split("+")[0], "device": device.type, "backend": backend}
