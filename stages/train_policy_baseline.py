"""Train the policies of one locomotion family that MAML is compared with: pretrained, oracle, random."""

from pathlib import Path
from typing import Annotated

import torch
import typer

from metalib.config import Params
from metalib.locomotion.families import FAMILIES
from metalib.trained_method import versions
from stages.policies import (
    EAGER,
    SearchPlan,
    load_goals,
    locomotion_family,
    train_policies,
    trained_policy,
    write_policy_curves,
)
from stages.running import PARAMS, ParamsOption, stage
from stages.training import training


def main(
    family: Annotated[str, typer.Argument(help=f"One of {', '.join(FAMILIES)}, e.g. cheetah_dir.")],
    dataset: Annotated[Path, typer.Argument(help="Frozen goals of generate_goals, e.g. data/cheetah_dir.")],
    output: Annotated[Path, typer.Argument(help="Folder to write, e.g. artifacts/cheetah_dir/baselines.")],
    params: ParamsOption = PARAMS,
) -> None:
    """Train the baselines of a locomotion family (settings: policy, train_policy_baseline).

    pretrained: one policy for all goals, a new one each episode, by the same trust-region steps without an inner step.
    oracle: the same, with the goal in its observation and one goal for the K episodes that share a value baseline.
    random: the policy as training starts. Writes <method>.safetensors and, of the trained ones, <method>-curves.tsv.
    """
    with stage(f"train_policy_baseline@{family}", params) as run:
        plans = [_plan(run.params, method, family, dataset) for method in ("pretrained", "oracle", "random")]
        determinants = {plan.method: plan.determinants() for plan in plans}
        with (
            training(run, plans[0].n_steps, determinants, EAGER) as trainer,
            run.output(output, dataset) as folder,
        ):
            states = train_policies(run, plans, trainer)
            for plan in plans:
                policy = trained_policy(plan, states[plan.method], versions(torch.device("cpu"), trainer.backend))
                policy.save(folder / f"{plan.method}.safetensors")
                if plan.n_steps:
                    write_policy_curves(folder / f"{plan.method}-curves.tsv", states[plan.method], adapts=False)


def _plan(params: Params, method: str, family_name: str, dataset: Path) -> SearchPlan:
    family, settings = locomotion_family(family_name), params.train_policy_baseline
    return SearchPlan(
        method=method,
        family=family,
        shared=params.policy,
        settings=settings,
        rule=None,
        inner_steps=0,
        pretraining=0.0,
        surrogate="likelihood_ratio",
        n_steps=0 if method == "random" else settings.meta_steps[family_name],
        validation=load_goals(dataset, "validation", family),
    )


if __name__ == "__main__":
    typer.run(main)
