"""Sinusoid regression: Finn, Abbeel and Levine (2017), section 5.1."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metalib.losses import Batch, Episode


class SinusoidTasks(NamedTuple):
    """Tasks: ``amplitude`` and ``phase`` (radians), both of shape ``[...]``."""

    amplitude: Tensor
    phase: Tensor

    def targets(self, x: Tensor) -> Tensor:
        """Return ``y = amplitude * sin(x - phase)`` for inputs ``x`` ``[..., n, 1]``."""
        return self.amplitude[..., None, None] * torch.sin(x - self.phase[..., None, None])

    def oracle_inputs(self, x: Tensor) -> Tensor:
        """Return ``[x, amplitude, phase]`` ``[..., n, 3]``, what the oracle is told."""
        parameters = torch.stack([self.amplitude, self.phase], dim=-1)[..., None, :]
        return torch.cat([x, parameters.expand(*x.shape[:-1], 2)], dim=-1)


@dataclass(frozen=True)
class Sinusoid:
    """The distribution of tasks ``y = A sin(x - phi)``: A, phi and x uniform on their ranges.

    Args:
        amplitude: range of A; the paper's is [0.1, 5].
        phase: range of phi in radians; the paper's is [0, pi].
        x: range of the inputs; the paper's is [-5, 5].

    Raises:
        ValueError: a range is not two finite numbers, the first below the second.
    """

    amplitude: tuple[float, float] = (0.1, 5.0)
    phase: tuple[float, float] = (0.0, math.pi)
    x: tuple[float, float] = (-5.0, 5.0)

    def __post_init__(self) -> None:
        for name, bounds in asdict(self).items():
            if len(bounds) != 2 or not -math.inf < bounds[0] < bounds[1] < math.inf:
                raise ValueError(f"{name} must be two finite numbers, low < high, got {list(bounds)}")

    def draw_tasks(self, generator: torch.Generator, shape: Sequence[int]) -> SinusoidTasks:
        """Draw independent tasks; amplitude and phase have the shape ``shape``."""
        amplitude, phase = torch.rand(2, *shape, generator=generator, device=generator.device)
        return SinusoidTasks(_scale(amplitude, self.amplitude), _scale(phase, self.phase))

    def draw_inputs(self, generator: torch.Generator, shape: Sequence[int], n: int) -> Tensor:
        """Draw inputs ``[*shape, n, 1]``."""
        return _scale(torch.rand(*shape, n, 1, generator=generator, device=generator.device), self.x)

    def draw_examples(self, generator: torch.Generator, shape: Sequence[int], n: int) -> tuple[SinusoidTasks, Batch]:
        """Draw tasks of shape ``shape`` and ``n`` labelled examples of each, ``x`` and ``y`` ``[*shape, n, 1]``."""
        tasks = self.draw_tasks(generator, shape)
        x = self.draw_inputs(generator, shape, n)
        return tasks, Batch(x, tasks.targets(x))

    def draw_episodes(self, generator: torch.Generator, shape: Sequence[int], n_support: int, n_query: int) -> Episode:
        """Draw one episode for each of ``shape`` fresh tasks; support and query are independent draws."""
        _, examples = self.draw_examples(generator, shape, n_support + n_query)
        return _episode(examples, n_support)

    def mean_function(self, x: Tensor) -> Tensor:
        """Return ``E[y | x]`` over tasks, the best prediction that does not adapt, shaped as ``x``.

        For phi uniform on [a, b] this is ``E[A] (cos(x - b) - cos(x - a)) / (b - a)``; with the paper's
        ranges, ``-1.623 cos x``.
        """
        a, b = self.phase
        return sum(self.amplitude) / 2 * (torch.cos(x - b) - torch.cos(x - a)) / (b - a)

    def to_dict(self) -> dict[str, Any]:
        """Return the distribution as plain data, which the task dataset stores."""
        return {name: list(bounds) for name, bounds in asdict(self).items()}

    @classmethod
    def from_dict(cls, description: dict[str, Any]) -> "Sinusoid":
        """Return the distribution that :meth:`to_dict` wrote."""
        return cls(**{name: (float(low), float(high)) for name, (low, high) in description.items()})


@dataclass(frozen=True)
class SinusoidPool:
    """A finite set of sinusoids: what meta-training sees where training tasks are few.

    Args:
        family: whose inputs are drawn.
        tasks: the pool, amplitude and phase ``[n_tasks]``; each is drawn with the same chance.

    Raises:
        ValueError: the pool is empty.
    """

    family: Sinusoid
    tasks: SinusoidTasks

    def __post_init__(self) -> None:
        if self.tasks.amplitude.ndim != 1 or not len(self.tasks.amplitude):
            raise ValueError(f"tasks must have the shape [n_tasks], got {list(self.tasks.amplitude.shape)}")

    def draw_episodes(self, generator: torch.Generator, shape: Sequence[int], n_support: int, n_query: int) -> Episode:
        """Draw a task of the pool and fresh examples of it for each of ``shape``."""
        device = generator.device
        drawn = torch.randint(len(self.tasks.amplitude), tuple(shape), generator=generator, device=device)
        tasks = SinusoidTasks(*(parameter.to(device)[drawn] for parameter in self.tasks))
        x = self.family.draw_inputs(generator, shape, n_support + n_query)
        return _episode(Batch(x, tasks.targets(x)), n_support)


def _episode(examples: Batch, n_support: int) -> Episode:
    """Split examples ``[..., n, 1]`` into the first ``n_support`` and the rest."""
    return Episode(
        support=Batch(*(part[..., :n_support, :] for part in examples)),
        query=Batch(*(part[..., n_support:, :] for part in examples)),
    )


def _scale(uniform: Tensor, bounds: tuple[float, float]) -> Tensor:
    low, high = bounds
    return low + (high - low) * uniform
