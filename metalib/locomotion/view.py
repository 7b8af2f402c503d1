"""What a policy is shown of an observation."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from metalib.locomotion.families import Family


@dataclass(frozen=True)
class ObservationView:
    """The columns of an observation that a policy is shown, each times its scale; the oracle is shown the goal too.

    Args:
        columns: numbers of the shown columns, ascending.
        scales: what each of them is multiplied with.
        goal_size: how many numbers of the goal follow; 0 hides it.
    """

    columns: tuple[int, ...]
    scales: tuple[float, ...]
    goal_size: int = 0

    @property
    def size(self) -> int:
        """How many numbers the policy is shown."""
        return len(self.columns) + self.goal_size

    @classmethod
    def of(cls, family: Family, scales: Mapping[str, float], with_goal: bool = False) -> "ObservationView":
        """Return the view in which the named parts of the observation are scaled, and hidden where the scale is 0.

        Args:
            family: whose ``observation_parts`` are named.
            scales: by part; what is not named keeps its scale of 1.
            with_goal: append the goal.

        Raises:
            ValueError: a part is unknown, or nothing would be shown.
        """
        unknown = set(scales) - set(family.observation_parts)
        if unknown:
            raise ValueError(
                f"{family.name}: unknown part of the observation {sorted(unknown)[0]!r}; "
                f"known: {', '.join(family.observation_parts)}"
            )
        columns: list[int] = []
        shown: list[float] = []
        start = 0
        for part, size in family.observation_parts.items():
            scale = scales.get(part, 1.0)
            if scale:
                columns += range(start, start + size)
                shown += [scale] * size
            start += size
        if not columns:
            raise ValueError(f"{family.name}: no part of the observation is shown; give one a scale other than 0")
        return cls(tuple(columns), tuple(shown), family.goal_size if with_goal else 0)

    def show(self, observations: Tensor, out: Tensor) -> None:
        """Write what is shown of ``observations`` ``[..., n]`` to ``out`` ``[..., size]``; its goal stays as it is."""
        target = out[..., : len(self.columns)] if self.goal_size else out
        if self._gaps:
            torch.index_select(observations, -1, self._index, out=target)
        else:
            target.copy_(observations[..., : len(self.columns)])
        if self._scales is not None:
            target.mul_(self._scales)

    @cached_property
    def _index(self) -> Tensor:
        return torch.tensor(self.columns)

    @property
    def _gaps(self) -> bool:
        return self.columns[-1] + 1 != len(self.columns)

    @cached_property
    def _scales(self) -> Tensor | None:
        return None if set(self.scales) == {1.0} else torch.tensor(self.scales)

    def to_dict(self) -> dict[str, Any]:
        """Return the view as plain data, which artefacts store."""
        return {"columns": list(self.columns), "scales": list(self.scales), "goal_size": self.goal_size}

    @classmethod
    def from_dict(cls, description: dict[str, Any]) -> "ObservationView":
        """Return the view that :meth:`to_dict` wrote."""
        return cls(tuple(description["columns"]), tuple(description["scales"]), description["goal_size"])
