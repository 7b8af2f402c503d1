"""Where rollouts come from: a family, a policy and its view of the world, fixed for a training or an evaluation."""

from dataclasses import dataclass

import torch
from torch import Tensor

from metalib.locomotion.collector import collect
from metalib.locomotion.families import Family
from metalib.locomotion.policy import GaussianPolicy
from metalib.locomotion.trajectories import Trajectories
from metalib.locomotion.view import ObservationView


@dataclass(frozen=True)
class Sampler:
    """Collects rollouts, see :func:`metalib.locomotion.collector.collect`, whose settings these are.

    Args:
        family: of the tasks.
        policy: of every task.
        view: what it is shown.
        rollouts: K.
        horizon: H.
        timing: of :data:`metalib.locomotion.bodies.TIMINGS`.
        threads: that step bodies.
    """

    family: Family
    policy: GaussianPolicy
    view: ObservationView
    rollouts: int
    horizon: int
    timing: str
    threads: int

    def collect(self, thetas: Tensor, goals: Tensor, generator: torch.Generator) -> Trajectories:
        """Return K rollouts of every task; ``thetas`` ``[task, n_parameters]``, goals as in ``collect``."""
        return collect(
            self.family,
            self.policy,
            thetas,
            goals,
            self.rollouts,
            self.horizon,
            generator,
            timing=self.timing,
            threads=self.threads,
            view=self.view,
        )
