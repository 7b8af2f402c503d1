"""What the ablation varies: the learner behind each of its conditions."""

from itertools import pairwise
from typing import NamedTuple

from metalib.config import Params

ALL_TASKS = "all"
"""The condition in which training tasks are drawn from the whole distribution."""


class Variant(NamedTuple):
    """A learner of the ablation: its ``hidden`` layers, and how many ``training_tasks`` it meets (None: any number)."""

    hidden: tuple[int, ...]
    training_tasks: int | None

    @property
    def name(self) -> str:
        """The name of its files."""
        return f"hidden-{'-'.join(map(str, self.hidden))}-tasks-{self.training_tasks or ALL_TASKS}"

    @property
    def n_weights(self) -> int:
        """How much arithmetic its training takes, roughly."""
        sizes = (1, *self.hidden, 1)
        return sum(a * b for a, b in pairwise(sizes))


def variants(params: Params) -> dict[tuple[str, str], Variant]:
    """Return the learner behind each condition, by experiment and condition; several may name the same learner."""
    settings, hidden = params.ablation, params.network.hidden
    found = {("training_tasks", str(n)): Variant(hidden, n) for n in settings.training_tasks}
    found["training_tasks", ALL_TASKS] = Variant(hidden, None)
    found |= {("layers", str(n)): Variant((hidden[0],) * n, None) for n in settings.layers}
    return found | {("units", str(n)): Variant((n,) * len(hidden), None) for n in settings.units}
