"""Meta-train a policy on one locomotion family: MAML with trust-region steps."""

from pathlib import Path
from typing import Annotated

import torch
import typer

from metalib.config import MetaTrainPolicySettings, Params
from metalib.locomotion.families import FAMILIES
from metalib.trained_method import versions
from metalib.update_rules import GradientDescent, MetaSGD, UpdateRule
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
    output: Annotated[Path, typer.Argument(help="Folder to write, e.g. artifacts/cheetah_dir/maml.")],
    params: ParamsOption = PARAMS,
) -> None:
    """Meta-train one initial policy that adapts to a goal from K rollouts (settings: policy, meta_train_policy).

    A meta-step collects rollouts of many tasks before and after an inner step and moves the initial policy by one
    trust-region step through the inner step (Finn et al. 2017, section 5.3). The first meta-steps may take no
    inner step (pretraining), and so learn what all goals have in common; the inner loop after them has its own rate and
    order (pretrained_inner_rate, pretrained_first_order). The parameters that are best on the validation goals are
    kept. Writes policy.safetensors (all seeds) and curves.tsv (returns against environment steps).
    """
    with stage(f"meta_train_policy@{family}", params) as run:
        plan = _plan(run.params, family, dataset)
        with (
            training(run, plan.n_steps, plan.determinants(), EAGER) as trainer,
            run.output(output, dataset) as folder,
        ):
            states = train_policies(run, [plan], trainer)[plan.method]
            trained_policy(plan, states, versions(torch.device("cpu"), trainer.backend)).save(
                folder / "policy.safetensors"
            )
            write_policy_curves(folder / "curves.tsv", states, adapts=True)


def _plan(params: Params, family_name: str, dataset: Path) -> SearchPlan:
    family, settings = locomotion_family(family_name), params.meta_train_policy
    plan = SearchPlan(
        method="maml",
        family=family,
        shared=params.policy,
        settings=settings,
        rule=None,
        inner_steps=settings.inner_steps,
        pretraining=settings.pretraining[family_name],
        surrogate=settings.surrogate,
        n_steps=settings.meta_steps[family_name],
        validation=load_goals(dataset, "validation", family),
    )
    return plan.with_rule(_rule(settings, plan))


def _rule(settings: MetaTrainPolicySettings, plan: SearchPlan) -> UpdateRule:
    rates, first_order = settings.inner_rate, settings.first_order
    if plan.pretraining_steps:
        rates, first_order = settings.pretrained_inner_rate, settings.pretrained_first_order
    rate = rates[plan.family.name]
    if settings.rule == "meta_sgd":
        return MetaSGD(plan.policy.n_parameters, rate, first_order)
    return GradientDescent(rate, first_order)


if __name__ == "__main__":
    typer.run(main)
