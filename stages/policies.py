"""Policies as the stages train them: settings into values, one search a seed, state saved on the way."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from metalib.config import PolicySettings, TrustRegionSettings
from metalib.locomotion.families import Family, family_named
from metalib.locomotion.goals import GoalSet, load_goal_set
from metalib.locomotion.policy import GaussianPolicy
from metalib.locomotion.sampler import Sampler
from metalib.locomotion.surrogate import SURROGATES
from metalib.locomotion.view import ObservationView
from metalib.meta_parameters import join
from metalib.meta_training.checkpoints import Progress
from metalib.meta_training.policy_search import COUNT_NAMES, CURVE_COLUMNS, PolicySearch, SearchState
from metalib.meta_training.trust_region import TrustRegion
from metalib.policy_adaptation import PolicyAdaptation
from metalib.randomness import generator
from metalib.storage import StorageError, write_text
from metalib.threads import available_threads
from metalib.trained_policy import TrainedPolicy
from metalib.update_rules import GradientDescent, UpdateRule
from stages.jobs import Control, Job, run_jobs, worker_count
from stages.running import Run, StageError
from stages.training import NEVER, Compilation, Trainer

EAGER = Compilation(NEVER)
"""Meta-steps of policies are large enough for PyTorch's own kernels."""
_UNUSED = GradientDescent(1.0)
"""The rule of policies that take no inner step."""


@dataclass(frozen=True)
class SearchPlan:
    """One method's training on one task family, as plain values that a worker process can be handed.

    Args:
        method: maml, pretrained, oracle or random.
        family: the task family.
        shared: settings of every policy.
        settings: of the outer loop.
        rule: how the policy adapts; None without inner steps.
        inner_steps: T.
        pretraining: the part of the meta-steps, from the first, that takes no inner step.
        surrogate: what adaptation lowers.
        n_steps: meta-steps; 0 keeps the policy as it starts.
        validation: goals by which the best parameters are chosen.

    Raises:
        StageError: the settings name a part of the observation that the family does not have, or pretraining leaves
            no meta-step to one of both kinds.
    """

    method: str
    family: Family
    shared: PolicySettings
    settings: TrustRegionSettings
    rule: UpdateRule | None
    inner_steps: int
    pretraining: float
    surrogate: str
    n_steps: int
    validation: Tensor

    def __post_init__(self) -> None:
        try:
            self.view  # noqa: B018 (refused before any work)
        except ValueError as error:
            raise StageError(f"policy.observation_scale.{self.family.body}: {error}") from error
        if self.pretraining and not 0 < self.pretraining_steps < self.n_steps:
            raise StageError(
                f"meta_train_policy.pretraining.{self.family.name}: {self.pretraining:g} of {self.n_steps} meta-steps "
                f"is {self.pretraining_steps}, but some must be pretraining and some not; set it to 0, or raise "
                "meta_steps"
            )

    @property
    def view(self) -> ObservationView:
        """What the policy is shown; the oracle sees the goal."""
        return ObservationView.of(
            self.family, self.shared.observation_scale[self.family.body], with_goal=self.method == "oracle"
        )

    @property
    def policy(self) -> GaussianPolicy:
        """The policy network."""
        sizes = (self.view.size, *self.shared.hidden, self.family.action_size)
        return GaussianPolicy(sizes, self.shared.activation)

    @property
    def rollouts(self) -> int:
        """K."""
        return self.settings.rollouts[self.family.body]

    @property
    def pretraining_steps(self) -> int:
        """Meta-steps that take no inner step, the first ones."""
        return round(self.pretraining * self.n_steps)

    @property
    def log_std(self) -> float:
        """Log standard deviation of actions with which training starts."""
        return self.shared.log_std[self.family.name]

    @property
    def lam(self) -> float:
        """Lambda of the advantages."""
        return self.shared.lam[self.family.name]

    def with_rule(self, rule: UpdateRule) -> "SearchPlan":
        """Return the same plan with another rule; some rules must know the policy's size."""
        return replace(self, rule=rule)

    def initial_phi(self, seed: int) -> Tensor:
        """Draw the meta-parameters ``[n_phi]`` with which training starts."""
        theta = self.policy.initial_theta(generator(seed, "initial theta"), self.log_std, self.shared.output_scale)
        return join(theta, self.rule.initial_omega(generator(seed, "initial omega"))) if self.rule else theta

    def search(self, seed: int, threads: int) -> PolicySearch:
        """Return the search of one seed."""
        body = self.family.body
        sampler = Sampler(
            self.family, self.policy, self.view, self.rollouts, self.shared.horizon[body], self.shared.timing, threads
        )
        loss = SURROGATES[self.surrogate](self.policy)
        rule = self.rule or _UNUSED
        return PolicySearch(
            PolicyAdaptation(sampler, rule, loss, self.shared.gamma, self.lam),
            self.inner_steps,
            self.pretraining_steps,
            TrustRegion(
                self.settings.kl_bound[self.family.name],
                self.settings.conjugate_gradient_steps,
                self.settings.damping,
            ),
            self.settings.meta_batch[body],
            self.settings.curvature_thinning,
            self.validation,
            self.settings.validate_every,
            seed,
        )

    def determinants(self) -> dict[str, Any]:
        """Return as plain data what determines the result, beside seed, code and versions."""
        return {
            "method": self.method,
            "family": self.family.name,
            "policy": self._own(self.shared.model_dump(mode="json")),
            "settings": self._own(self.settings.model_dump(mode="json")),
            "validation": self.validation.tolist(),
        }

    def _own(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Return settings without what those by task family or by body say of others."""
        mine = (self.family.name, self.family.body)

        def own(value: Any) -> Any:
            return next((value[name] for name in mine if isinstance(value, dict) and name in value), value)

        return {key: own(value) for key, value in settings.items()}


def search_policy(plan: SearchPlan, seed: int, threads: int, trainer: Trainer, control: Control) -> SearchState:
    """Run one seed's search, from saved state where there is some."""
    search = plan.search(seed, threads)
    checkpoints = trainer.checkpoints(f"{plan.method}-seed{seed}", control)
    progress = checkpoints.restore(search.start(plan.initial_phi(seed), plan.n_steps))
    control.advance(progress.steps)
    state: SearchState = progress.state
    for steps, found in enumerate(search.run(state, progress.steps), progress.steps + 1):
        state = found
        checkpoints.keep(Progress(steps, state, {}))
        control.advance(steps, _how_it_goes(plan, state, steps))
    return state


def _how_it_goes(plan: SearchPlan, state: SearchState, steps: int) -> str:
    env_steps, before, after, _ = state.curve[steps - 1].tolist()
    returns = f"return {before:.1f}" + (f", adapted {after:.1f}" if math.isfinite(after) else "")
    return f"({returns}, {env_steps / 1e6:.2f} M environment steps)"


def train_policies(run: Run, plans: list[SearchPlan], trainer: Trainer) -> dict[str, list[SearchState]]:
    """Train every plan for all its seeds, side by side; return the states by method, in the order of the seeds."""
    states = {plan.method: _untrained(plan) for plan in plans if not plan.n_steps}
    cases = [(plan, seed) for plan in plans if plan.n_steps for seed in plan.settings.seeds]
    workers = worker_count(run.machine, len(cases))
    threads = threads_each(run, workers)
    jobs = [
        Job(
            f"{plan.method}, {plan.family.name}, seed {seed}",
            plan.n_steps,
            search_policy,
            (plan, seed, threads, trainer),
        )
        for plan, seed in cases
    ]
    found = run_jobs(jobs, workers, "meta-steps")
    for (plan, _), state in zip(cases, found, strict=True):
        states.setdefault(plan.method, []).append(state)
    return states


def _untrained(plan: SearchPlan) -> list[SearchState]:
    """Return each seed's state before the first meta-step."""
    return [plan.search(seed, threads=1).start(plan.initial_phi(seed), 0) for seed in plan.settings.seeds]


def threads_each(run: Run, workers: int) -> int:
    """Return how many threads each of ``workers`` processes may use."""
    processors = available_threads() if run.machine.workers == "auto" else run.machine.workers
    return max(1, processors // workers)


def trained_policy(plan: SearchPlan, states: list[SearchState], versions: dict[str, str]) -> TrainedPolicy:
    """Return what training leaves behind: of each seed the parameters that were best on the validation goals."""
    counts = torch.stack([state.counts for state in states]).sum(dim=0).tolist()
    env_steps = sum(int(state.curve[-1, 0]) for state in states) // len(states) if plan.n_steps else 0
    settings = {
        "hidden": list(plan.shared.hidden),
        "activation": plan.shared.activation,
        "initial_log_std": plan.log_std,
        "initial_output_scale": plan.shared.output_scale,
        "timing": plan.shared.timing,
        "horizon": plan.shared.horizon[plan.family.body],
        "observation_scale": plan.shared.observation_scale[plan.family.body],
        "meta_steps": plan.n_steps,
        "pretraining_steps": plan.pretraining_steps if plan.inner_steps else None,
        "rollouts": plan.rollouts,
        "meta_batch": plan.settings.meta_batch[plan.family.body],
        "gamma": plan.shared.gamma,
        "lam": plan.lam,
        "kl_bound": plan.settings.kl_bound[plan.family.name],
        "rule": plan.rule.to_dict() if plan.rule else None,
        "surrogate": plan.surrogate,
        "best_meta_step": [int(state.best_step) for state in states],
        **dict(zip(COUNT_NAMES, counts, strict=True)),
        "versions": versions,
    }
    return TrainedPolicy(
        method=plan.method,
        family=plan.family,
        policy=plan.policy,
        view=plan.view,
        phi=torch.stack([state.best_phi for state in states]),
        seeds=plan.settings.seeds,
        rule=plan.rule,
        inner_steps=plan.inner_steps,
        surrogate=plan.surrogate,
        rollouts=plan.rollouts,
        horizon=plan.shared.horizon[plan.family.body],
        timing=plan.shared.timing,
        gamma=plan.shared.gamma,
        lam=plan.lam,
        env_steps=env_steps,
        settings=settings,
    )


def locomotion_family(name: str) -> Family:
    """Return the task family of this name.

    Raises:
        StageError: there is none.
    """
    try:
        return family_named(name)
    except ValueError as error:
        raise StageError(str(error)) from error


def load_goals(dataset: Path, name: str, family: Family) -> Tensor:
    """Return the frozen goals ``[task, goal_size]`` of a family's dataset.

    Raises:
        StorageError: the file is missing or damaged, or of another family.
    """
    path = dataset / f"{name}.safetensors"
    found: GoalSet = load_goal_set(path)
    if found.family != family:
        raise StorageError(f"{path} holds goals of {found.family.name}, but those of {family.name} are needed")
    return found.goals


def write_policy_curves(path: Path, states: list[SearchState], adapts: bool) -> None:
    """Write the training curve, averaged over seeds, as TSV; what was not measured is NaN, which plots leave out."""
    mean = torch.stack([state.curve for state in states]).mean(dim=0)
    table = pd.DataFrame(mean.numpy(), columns=list(CURVE_COLUMNS))
    table["env_steps"] = table["env_steps"].astype("int64")
    table.insert(1, "meta_step", range(1, len(table) + 1))
    if not adapts:
        table = table.drop(columns="return_after").rename(columns={"return_before": "return"})
    write_text(path, table.to_csv(sep="\t", index=False, float_format="%.6g", na_rep="NaN"))
