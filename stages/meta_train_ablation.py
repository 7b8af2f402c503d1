"""Meta-train MAML on sinusoids under other conditions: few training tasks, networks of other depths and widths."""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from metalib.config import Params
from metalib.randomness import generator
from metalib.tasks import Sinusoid, SinusoidPool, SinusoidTasks
from metalib.tasks.dataset import load_distribution
from metalib.trained_method import TrainedMethod
from stages.ablation import ALL_TASKS, Variant, variants
from stages.curves import mean_curve, write_curves
from stages.jobs import Control, Job, run_jobs, worker_count
from stages.meta_train import architecture_of, meta_train, trained_method
from stages.mlp_kernel import mlp_compilation
from stages.running import PARAMS, ParamsOption, stage
from stages.training import Trainer, training
from stages.update_rules import MetaLearner


def main(
    dataset: Annotated[Path, typer.Argument(help="Task dataset of generate_tasks, e.g. data/sinusoid.")],
    output: Annotated[Path, typer.Argument(help="Folder to write, e.g. artifacts/sinusoid/ablation.")],
    params: ParamsOption = PARAMS,
) -> None:
    """Meta-train MAML once for each condition of the ablation and each seed (settings: ablation, meta_train, network).

    Writes one file a condition, e.g. hidden-40-40-tasks-64.safetensors (the meta-parameters of all seeds), and
    curves.tsv (the query loss after adaptation against meta-steps).
    """
    with stage("meta_train_ablation", params) as run:
        settings = run.params.ablation
        # Largest first, so that no worker is left alone with the longest.
        distinct = set(variants(run.params).values())
        wanted = sorted(distinct, key=lambda v: (-v.n_weights, v.training_tasks or 0, v.hidden))
        networks = [architecture_of(params_of(run.params, variant)) for variant in wanted]
        with (
            training(
                run,
                settings.meta_steps,
                _determinants(run.params, dataset),
                mlp_compilation(networks, run.params.meta_train.inner_steps, (settings.shots,)),
            ) as trainer,
            run.output(output, dataset) as folder,
        ):
            family = load_distribution(dataset)
            cases = [(variant, seed) for seed in settings.seeds for variant in wanted]
            jobs = [
                Job(
                    f"{variant.name}, seed {seed}",
                    settings.meta_steps,
                    train_variant,
                    (run.params, family, variant, seed, trainer),
                )
                for variant, seed in cases
            ]
            found = run_jobs(jobs, worker_count(run.machine, len(jobs)), "meta-steps")
            results = dict(zip(cases, found, strict=True))
            for variant in wanted:
                phi = torch.from_numpy(np.concatenate([results[variant, seed][0] for seed in settings.seeds]))
                _trained(run.params, variant, phi, trainer).save(folder / f"{variant.name}.safetensors")
            curves = {v.name: mean_curve([results[v, seed][1] for seed in settings.seeds]) for v in wanted}
            write_curves(folder / "curves.tsv", curves)


def _determinants(params: Params, dataset: Path) -> dict[str, Any]:
    """Return the settings and data that determine what is trained."""
    return {
        "network": params.network.model_dump(mode="json"),
        "meta_train": params.meta_train.model_dump(mode="json"),
        "ablation": params.ablation.model_dump(mode="json"),
        "distribution": load_distribution(dataset).to_dict(),
    }


def train_variant(
    params: Params, family: Sinusoid, variant: Variant, seed: int, trainer: Trainer, control: Control
) -> tuple[np.ndarray, dict[int, float]]:
    """Meta-train one learner of the ablation with one seed; return phi ``[1, n_phi]`` and the training curve."""
    source = family if variant.training_tasks is None else pool(params, family, variant.training_tasks, seed)
    changed = params_of(params, variant)
    shots = params.ablation.shots
    return meta_train(changed, MetaLearner.MAML, source, shots, (seed,), trainer, control, prefix=f"{variant.name}-")


def pool(params: Params, family: Sinusoid, n_tasks: int, seed: int) -> SinusoidPool:
    """Return ``n_tasks`` training tasks; those of a smaller pool are the first of a larger one of the same seed."""
    most = max(params.ablation.training_tasks)
    tasks = family.draw_tasks(generator(seed, f"pool of {most} training tasks"), (most,))
    return SinusoidPool(family, SinusoidTasks(tasks.amplitude[:n_tasks], tasks.phase[:n_tasks]))


def params_of(params: Params, variant: Variant) -> Params:
    """Return the settings by which a variant is trained: those of MAML with its network and the ablation's counts."""
    settings = params.ablation
    counts = {"shots": (settings.shots,), "meta_steps": settings.meta_steps, "seeds": settings.seeds}
    return params.model_copy(
        update={
            "network": params.network.model_copy(update={"hidden": variant.hidden}),
            "meta_train": params.meta_train.model_copy(update=counts),
        }
    )


def _trained(params: Params, variant: Variant, phi: torch.Tensor, trainer: Trainer) -> TrainedMethod:
    method = trained_method(params_of(params, variant), MetaLearner.MAML, params.ablation.shots, phi, trainer)
    method.settings["training_tasks"] = variant.training_tasks or ALL_TASKS
    return method


if __name__ == "__main__":
    typer.run(main)
