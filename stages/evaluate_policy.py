"""Evaluate every policy of one locomotion family on held-out goals: returns before and after gradient steps."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor

from metalib.config import EvaluatePolicySettings, Params
from metalib.locomotion.families import FAMILIES
from metalib.meta_parameters import split
from metalib.policy_evaluation import adapted_returns, choose_policy_rate
from metalib.randomness import generator
from metalib.return_files import POLICY_RATES_SCHEMA, Returns, save_returns
from metalib.storage import write_checked_json
from metalib.trained_policy import TrainedPolicy, at_test
from metalib.update_rules import GradientDescent, ScheduledGradientDescent, UpdateRule
from stages.jobs import Control, Job, run_jobs, worker_count
from stages.policies import load_goals, locomotion_family, threads_each
from stages.policy_pictures import draw_adaptation
from stages.running import PARAMS, ParamsOption, stage

METHODS = ("maml", "pretrained", "oracle", "random")
FINE_TUNED = ("pretrained", "random")
Case = tuple[str, tuple[int, ...]]
"""A method, and the K at which it is evaluated."""
_UNUSED_RATE = 1.0  # of the oracle, which takes no step


def main(
    family: Annotated[str, typer.Argument(help=f"One of {', '.join(FAMILIES)}, e.g. cheetah_dir.")],
    dataset: Annotated[Path, typer.Argument(help="Frozen goals of generate_goals, e.g. data/cheetah_dir.")],
    artifacts: Annotated[Path, typer.Argument(help="Trained policies of the family, e.g. artifacts/cheetah_dir.")],
    output: Annotated[Path, typer.Argument(help="Folder to write, e.g. artifacts/cheetah_dir/scores.")],
    params: ParamsOption = PARAMS,
) -> None:
    """Adapt every policy to each held-out goal and measure returns on fresh rollouts (settings: evaluate_policy).

    The rates of pretrained and random are chosen on validation goals. Writes returns.safetensors, rates.json,
    speeds.safetensors and, where pictures can be rendered, video.webp.
    """
    with stage(f"evaluate_policy@{family}", params) as run, run.output(output, dataset, artifacts) as folder:
        of_family = locomotion_family(family)
        goals = {name: load_goals(dataset, name, of_family) for name in ("validation", "test")}
        policies = {method: TrainedPolicy.load(_file(artifacts, method), family) for method in METHODS}
        cases = _cases(run.params.evaluate_policy)
        workers = worker_count(run.machine, len(cases))
        threads = threads_each(run, workers)
        jobs = [
            Job(
                f"{method}, {family}, K = {', '.join(map(str, shots))}",
                _total(run.params, policies[method], shots),
                evaluate,
                (run.params, policies[method], goals, shots, threads),
            )
            for method, shots in cases
        ]
        found = dict(zip(cases, run_jobs(jobs, workers, "rollout batches"), strict=True))
        save_returns(
            folder / "returns.safetensors",
            [returns for case in sorted(cases, key=_as_stored) for returns in found[case][0]],
            {method: policy.settings for method, policy in policies.items()},
        )
        rates = {method: rates for (method, _), (_, rates) in found.items() if method in FINE_TUNED}
        write_checked_json(folder / "rates.json", POLICY_RATES_SCHEMA, rates)
        chosen = {method: _rule(run.params.evaluate_policy, policies[method], rates.get(method)) for method in METHODS}
        draw_adaptation(folder, policies, chosen, goals["test"], run.params.evaluate_policy.seed, threads * workers)


def _file(artifacts: Path, method: str) -> Path:
    return artifacts / ("maml/policy.safetensors" if method == "maml" else f"baselines/{method}.safetensors")


def _cases(settings: EvaluatePolicySettings) -> list[Case]:
    """Return what is evaluated in a job of its own, longest first, so that no worker is left alone with the longest.

    A fine-tuned method is one job, since its rate is chosen once for every K.
    """
    most_first = sorted(settings.rollouts, reverse=True)
    tuned = [(method, settings.rollouts) for method in FINE_TUNED]
    return tuned + [(method, (k,)) for method in METHODS if method not in FINE_TUNED for k in most_first]


def _as_stored(case: Case) -> tuple[int, tuple[int, ...]]:
    method, rollouts = case
    return METHODS.index(method), rollouts


def _total(params: Params, policy: TrainedPolicy, rollouts: tuple[int, ...]) -> int:
    """Return how many batches of rollouts evaluating a policy takes."""
    settings = params.evaluate_policy
    tried = 1 + len(settings.finetune_rates) if policy.method in FINE_TUNED else 0
    steps = 0 if policy.method == "oracle" else settings.gradient_steps
    return len(policy.seeds) * (tried + len(rollouts) * (steps + 1))


def evaluate(
    params: Params,
    policy: TrainedPolicy,
    goals: dict[str, Tensor],
    rollouts: tuple[int, ...],
    threads: int,
    control: Control,
) -> tuple[list[Returns], dict[str, float | None]]:
    """Evaluate one method at each K of ``rollouts``; return its returns and, of fine-tuned methods, the rates tried."""
    settings = params.evaluate_policy
    done = 0

    def advance(batches: int) -> None:
        nonlocal done
        done += batches
        control.advance(done)

    control.advance(0)
    rates: dict[str, float | None] = {}
    if policy.method in FINE_TUNED:
        rates = choose_policy_rate(
            policy,
            settings.finetune_rates,
            goals["validation"],
            threads,
            lambda step: generator(settings.seed, f"validation rollouts, iterate {step}"),
            advance,
        )
    rule = _rule(settings, policy, rates)
    return [_returns(settings, policy, rule, goals["test"], k, threads, advance) for k in rollouts], rates


def _returns(
    settings: EvaluatePolicySettings,
    policy: TrainedPolicy,
    rule: UpdateRule,
    goals: Tensor,
    rollouts: int,
    threads: int,
    advance: Callable[[int], object],
) -> Returns:
    """Return what a method earns on the test goals when it adapts on K = ``rollouts``."""
    steps = 0 if policy.method == "oracle" else settings.gradient_steps

    def numbers(step: int) -> torch.Generator:
        return generator(settings.seed, f"test rollouts, K = {rollouts}, iterate {step}")

    values = adapted_returns(policy, rule, goals, rollouts, steps, threads, numbers, advance)
    rates = _rates_of(policy, rule, steps)
    return Returns(policy.family.name, policy.method, rollouts, rates, policy.env_steps, values)


def _rule(settings: EvaluatePolicySettings, policy: TrainedPolicy, rates: dict[str, float | None] | None) -> UpdateRule:
    """Return how a method adapts at test: MAML at its own rate, fine-tuned methods at the chosen one."""
    chosen = rates.get("chosen") if rates else None
    own = policy.rule or GradientDescent(chosen or _UNUSED_RATE)
    return at_test(own, settings.later_rates)


def _rates_of(policy: TrainedPolicy, rule: UpdateRule, steps: int) -> tuple[float, ...]:
    """Return the rate of each of ``steps`` gradient steps; of learned rates the mean."""
    if not isinstance(rule, ScheduledGradientDescent):
        _, omega = split(policy.phi, rule)
        return (omega.mean().item(),) * steps
    return tuple(rule.rates[min(step, len(rule.rates) - 1)] for step in range(steps))


if __name__ == "__main__":
    typer.run(main)
