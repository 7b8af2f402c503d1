"""What policy training leaves behind, on disk and in a notebook: a policy that adapts to a goal from a few rollouts."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metalib import update_rules
from metalib.locomotion.families import Family, family_named
from metalib.locomotion.policy import GaussianPolicy
from metalib.locomotion.sampler import Sampler
from metalib.locomotion.surrogate import SURROGATES
from metalib.locomotion.view import ObservationView
from metalib.policy_adaptation import PolicyAdaptation
from metalib.storage import StorageError, load_tensors, save_tensors
from metalib.threads import available_threads
from metalib.update_rules import GradientDescent, ScheduledGradientDescent, UpdateRule

_SCHEMA = "trained policy 1"
_PLAIN = (
    "inner_steps",
    "surrogate",
    "rollouts",
    "horizon",
    "timing",
    "gamma",
    "lam",
    "env_steps",
    "settings",
)


@dataclass(frozen=True)
class TrainedPolicy:
    """The meta-parameters of one method on one task family, for all its seeds.

    >>> trained = TrainedPolicy.load("artifacts/cheetah_dir/maml/policy.safetensors")  # doctest: +SKIP
    >>> thetas = trained.adapt(torch.tensor([[-1.0], [1.0]]), generator(0, "my rollouts"))  # doctest: +SKIP

    Args:
        method: maml, pretrained, oracle or random.
        family: the task family.
        policy: its sizes fit the view.
        view: what the policy is shown.
        phi: meta-parameters ``[seeds, n_phi]``.
        seeds: the seed of each row.
        rule: how it adapts; None if that is to be chosen (baselines) or it does not (oracle).
        inner_steps: inner steps of meta-training; 0 for baselines.
        surrogate: what adaptation lowers, of ``SURROGATES``.
        rollouts: K of training.
        horizon: H.
        timing: of the bodies.
        gamma: discount.
        lam: lambda of the advantages.
        env_steps: environment steps of training, of one seed (the mean over seeds); 0 for random.
        settings: what training was told, what went wrong in it, and the versions its bytes depend on.
    """

    method: str
    family: Family
    policy: GaussianPolicy
    view: ObservationView
    phi: Tensor
    seeds: tuple[int, ...]
    rule: UpdateRule | None
    inner_steps: int
    surrogate: str
    rollouts: int
    horizon: int
    timing: str
    gamma: float
    lam: float
    env_steps: int
    settings: dict[str, Any]

    def adaptation(
        self, rule: UpdateRule | None = None, rollouts: int | None = None, threads: int | None = None
    ) -> PolicyAdaptation:
        """Return how this method adapts, with its own rule and number of rollouts unless told otherwise.

        Raises:
            ValueError: no rule is given and the method brings none.
        """
        rule = rule or self.rule
        if rule is None:
            raise ValueError(f"{self.method} brings no update rule; pass one, e.g. rule=GradientDescent(0.1)")
        k = self.rollouts if rollouts is None else rollouts
        workers = available_threads() if threads is None else threads
        sampler = Sampler(self.family, self.policy, self.view, k, self.horizon, self.timing, workers)
        return PolicyAdaptation(sampler, rule, SURROGATES[self.surrogate](self.policy), self.gamma, self.lam)

    def adapt(
        self,
        goals: Tensor,
        generator: torch.Generator,
        steps: int | None = None,
        index: int = 0,
        rule: UpdateRule | None = None,
        rollouts: int | None = None,
    ) -> Tensor:
        """Adapt to tasks from rollouts on them; return theta of each task, ``[task, n_parameters]``.

        Args:
            goals: ``[task, goal_size]``.
            generator: of the rollouts; as many numbers of it are used as there are steps.
            steps: inner steps; by default those of meta-training, one for baselines.
            index: which of the seeds, from 0.
            rule: needed for baselines, which bring none.
            rollouts: K, by default that of training.

        Raises:
            ValueError: no such seed, no rule, goals outside the family's range, steps below 0 or rollouts below 1.
        """
        if not 0 <= index < len(self.seeds):
            raise ValueError(f"index must be from 0 to {len(self.seeds) - 1}, got {index}")
        steps = max(self.inner_steps, 1) if steps is None else steps
        if steps < 0:
            raise ValueError(f"steps must be 0 or more, got {steps}")
        self.family.check_goals(goals)
        adaptation = self.adaptation(rule, rollouts)
        return adaptation.adapted(self.phi[index], goals, steps, lambda step: generator)

    def save(self, path: Path | str) -> None:
        """Write the policy to one safetensors file."""
        header = {
            "method": self.method,
            "family": self.family.name,
            "policy": self.policy.to_dict(),
            "view": self.view.to_dict(),
            "seeds": list(self.seeds),
            "rule": self.rule.to_dict() if self.rule else None,
            **{name: getattr(self, name) for name in _PLAIN},
        }
        save_tensors(Path(path), _SCHEMA, {"phi": self.phi}, header)

    @classmethod
    def load(cls, path: Path | str, family: str | None = None) -> "TrainedPolicy":
        """Return the policy that :meth:`save` wrote.

        Args:
            path: the file.
            family: the task family it must be of, if given.

        Raises:
            StorageError: the file is missing, damaged, of another kind, or of another family; or its parameters do
                not fit its policy.
        """
        tensors, header = load_tensors(Path(path), _SCHEMA)
        if family is not None and header.get("family") != family:
            raise StorageError(f"{path} holds a policy for {header.get('family')}, but one for {family} is needed")
        try:
            loaded = cls(
                family=family_named(header["family"]),
                policy=GaussianPolicy.from_dict(header["policy"]),
                view=ObservationView.from_dict(header["view"]),
                phi=tensors["phi"],
                seeds=tuple(header["seeds"]),
                rule=update_rules.from_dict(header["rule"]) if header["rule"] else None,
                method=header["method"],
                **{name: header[name] for name in _PLAIN},
            )
        except (ValueError, TypeError, KeyError) as error:
            raise StorageError(f"{path}: {error}; it was written by another version: run `dvc repro`") from error
        n_phi = loaded.policy.n_parameters + (loaded.rule.n_omega if loaded.rule else 0)
        if loaded.phi.shape != (len(loaded.seeds), n_phi) or loaded.policy.observation_size != loaded.view.size:
            raise StorageError(
                f"{path}: parameters of shape {list(loaded.phi.shape)} do not fit {len(loaded.seeds)} seeds of a "
                f"policy of sizes {loaded.policy.sizes}, which is shown {loaded.view.size} numbers; run `dvc repro`"
            )
        return loaded


def at_test(rule: UpdateRule, later_rates: float) -> UpdateRule:
    """Return the rule with the rates of test time: the first step's, then ``later_rates`` times it from the second on.

    Finn et al. (2017) halve the rate after the first step. A rule that is not plain gradient descent stays as it is.
    """
    if not isinstance(rule, GradientDescent):
        return rule
    return ScheduledGradientDescent((rule.rate, later_rates * rule.rate), rule.first_order)
