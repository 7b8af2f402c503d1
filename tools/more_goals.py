"""Evaluate trained policies on many goals drawn afresh, beside the frozen ones: what the draw of those is worth."""

import json
import shutil
import threading
from pathlib import Path
from typing import Annotated

import pandas as pd
import torch
import typer
from torch import Tensor

from benchmarks.machine import facts
from metalib.config import Params, load_params
from metalib.locomotion.families import family_named
from metalib.locomotion.goals import draw_goal_set
from metalib.locomotion.recording import record, speeds_until_end
from metalib.randomness import generator
from metalib.reporting.page import markdown_table
from metalib.reporting.returns import return_table
from metalib.return_files import Returns, load_returns
from metalib.threads import available_threads
from metalib.trained_policy import TrainedPolicy, at_test
from stages.evaluate_policy import evaluate
from stages.jobs import Control
from stages.policies import load_goals
from tools.results import RUN, put_in_place, refuse_other_folder
from tools.trial import ROOT, from_root

SCRATCH = ROOT / ".cache" / "more-goals"
VELOCITY_TASKS = ("cheetah_vel", "ant_vel")
POLICIES = {"maml": "maml/policy", "pretrained": "baselines/pretrained", "oracle": "baselines/oracle"}
BOOTSTRAP_SAMPLES = 2000
BANDS = 8
"""Groups of goals by wanted speed, of as many each as can be."""


def main(
    task: Annotated[str, typer.Argument(help=f"One of {', '.join(VELOCITY_TASKS)}.")],
    project: Annotated[Path, typer.Option(help="Where policies were trained; .cache/paper after `make paper`.")] = ROOT,
    goals: Annotated[int, typer.Option(min=BANDS, help="Goals to draw.")] = 400,
    rollouts: Annotated[int, typer.Option(min=1, help="K.")] = 20,
    output: Annotated[Path | None, typer.Option(help="Folder to write; results/more-goals/TASK if not given.")] = None,
) -> None:
    """Evaluate MAML, pretrained and oracle of TASK on freshly drawn goals, as the pipeline does on its frozen ones.

    Forty goals differ between draws, and returns with them. Directions have two goals, so nothing to draw. Shows the
    speeds that MAML keeps beside the wanted ones, too.
    """
    if task not in VELOCITY_TASKS:
        raise typer.BadParameter(f"{task!r} has no goals to draw; name one of {', '.join(VELOCITY_TASKS)}")
    if output is None and project.resolve() != ROOT:
        raise typer.BadParameter(
            "name the folder to write, so that the results of this project's own policies stay", param_hint="--output"
        )
    target = output or ROOT / "results" / "more-goals" / task
    refuse_other_folder(target)
    family, artifacts = family_named(task), project / "artifacts" / task
    params = load_params(project / "params.yaml")
    sets = {name: load_goals(project / "data" / task, name, family) for name in ("validation", "test")}
    stored, _ = load_returns(artifacts / "scores" / "returns.safetensors")
    on_frozen = [entry for entry in stored if entry.method in POLICIES and entry.rollouts == rollouts]
    if len(on_frozen) != len(POLICIES):
        known = sorted({entry.rollouts for entry in stored})
        raise typer.BadParameter(
            f"{artifacts} has no returns at K = {rollouts}, but at {known}", param_hint="--rollouts"
        )
    drawn = draw_goal_set(family, generator(params.evaluate_policy.seed, "more test goals"), goals).goals
    policies = {m: TrainedPolicy.load(artifacts / f"{path}.safetensors", task) for m, path in POLICIES.items()}
    found = [
        measure(params, policies[method], {"validation": sets["validation"], "test": drawn}, rollouts)
        for method in POLICIES
    ]
    table = side_by_side({"frozen": (sets["test"], on_frozen), "drawn": (drawn, found)})
    by_band = speeds(params, policies["maml"], drawn, rollouts)
    shutil.rmtree(SCRATCH, ignore_errors=True)
    SCRATCH.mkdir(parents=True)
    table.to_csv(SCRATCH / "table.csv", index=False, float_format="%.6g")
    by_band.to_csv(SCRATCH / "speeds.csv", index=False, float_format="%.4g")
    command = f"python -m tools.more_goals {task} --goals {goals} --rollouts {rollouts}"
    command += "" if project.resolve() == ROOT else f" --project {from_root(project)}"
    command += "" if output is None else f" --output {from_root(output)}"
    (SCRATCH / RUN).write_text(json.dumps({"command": command, "machine": facts()}, indent=1) + "\n")
    (SCRATCH / "README.md").write_text(page(table, by_band, task, rollouts, command))
    put_in_place(SCRATCH, target)
    print(f"written: {target / 'README.md'}")


def measure(params: Params, policy: TrainedPolicy, goals: dict[str, Tensor], rollouts: int) -> Returns:
    """Return what a policy earns on the test goals of ``goals``, as the pipeline measures it."""
    quiet = Control(lambda done: print(f"{policy.method}: {done} batches", flush=True), threading.Event())
    returns, _ = evaluate(params, policy, goals, (rollouts,), available_threads(), quiet)
    return returns[0]


def side_by_side(sets: dict[str, tuple[Tensor, list[Returns]]]) -> pd.DataFrame:
    """Return the long table of returns on each set of goals, with the mean goal of each (m/s)."""
    tables = [
        return_table(returns, 0, BOOTSTRAP_SAMPLES).assign(goals=name, goal_mean=goals.double().mean().item())
        for name, (goals, returns) in sets.items()
    ]
    return pd.concat(tables, ignore_index=True)


def speeds(params: Params, policy: TrainedPolicy, goals: Tensor, rollouts: int) -> pd.DataFrame:
    """Return the speeds (m/s) that a policy of the first seed keeps after 0, 1, ... gradient steps, by wanted speed.

    A row is the mean over a band of goals, one rollout of each, and over the second half of a rollout, in which it is
    no longer gathering speed; rollouts that ended before are left out.

    Args:
        params: how policies are evaluated.
        policy: with a rule of its own.
        goals: wanted speeds, ``[goal, 1]``.
        rollouts: K, that a gradient step sees.
    """
    settings = params.evaluate_policy
    wanted = goals[goals[:, 0].argsort(stable=True)]
    rule = policy.rule and at_test(policy.rule, settings.later_rates)
    adaptation = policy.adaptation(rule, rollouts)
    iterates = adaptation.iterates(
        policy.phi[0],
        wanted,
        settings.gradient_steps,
        lambda step: generator(settings.seed, f"speeds, rollouts to adapt on, iterate {step}"),
    )
    rows: dict[str, list[float]] = {"wanted": _of_bands(wanted[:, 0])}
    for step, iterate in enumerate(iterates):
        recording = record(
            policy.family,
            policy.policy,
            iterate.thetas,
            wanted,
            policy.horizon,
            generator(settings.seed, "speeds, rollouts"),
            policy.timing,
            policy.view,
        )
        rows[f"after_{step}"] = _of_bands(speeds_until_end(recording)[:, policy.horizon // 2 :].nanmean(dim=1))
    return pd.DataFrame(rows)


def _of_bands(values: Tensor) -> list[float]:
    """Return the means of BANDS parts of ``values`` ``[goal]``, without those that are not a number."""
    return [part.nanmean().item() for part in torch.tensor_split(values.double(), BANDS)]


def page(table: pd.DataFrame, by_band: pd.DataFrame, task: str, rollouts: int, command: str) -> str:
    """Return what was found, as Markdown."""
    steps = {f"after_{step}": f"after {step} steps" for step in range(len(by_band.columns) - 1)}
    shown_speeds = by_band.rename(columns={**steps, "after_0": "before", "after_1": "after one step"})
    shown = table.assign(
        goals=[f"{n} {name}" for n, name in zip(table["n_goals"], table["goals"], strict=True)],
        interval=[f"[{a:.1f}, {b:.1f}]" for a, b in zip(table["ci95_low"], table["ci95_high"], strict=True)],
    ).rename(columns={"return_mean": "return", "gradient_step": "step", "goal_mean": "mean goal, m/s"})
    columns = ["method", "step", "goals", "mean goal, m/s", "return", "interval", "env_steps"]
    shown = shown.sort_values(["method", "step", "goals"], kind="stable", ignore_index=True)[columns]
    return f"""# {task}: the frozen test goals, and many drawn afresh

Mean undiscounted returns after 0 to 3 gradient steps on K = {rollouts} rollouts, with 95% bootstrap intervals over
goals. The frozen goals are those of every table of the project; the drawn ones come from the same distribution. The
policies are the same, and so is how they adapt. env_steps: of training.

{markdown_table(shown)}

The speed that MAML keeps, m/s, on the drawn goals in {BANDS} bands of as many each: the mean over the second half of
one rollout of each goal, of the first seed's policy. Rollouts that ended before are left out.

{markdown_table(shown_speeds, digits=2)}

Made again by `{command}`.
"""


if __name__ == "__main__":
    typer.run(main)
