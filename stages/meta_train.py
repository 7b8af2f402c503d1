"""Meta-train a learner: one initialisation for every K and seed."""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from metalib.config import Params
from metalib.losses import Episode, mean_squared_error
from metalib.meta_training.adam import Adam
from metalib.meta_training.objectives import query_loss_after_adaptation
from metalib.meta_training.supervised import stack_seeds
from metalib.networks import MLP
from metalib.randomness import generator
from metalib.tasks import Sinusoid
from metalib.tasks.dataset import load_distribution
from metalib.trained_method import TrainedMethod, versions
from metalib.update_rules import GradientDescent
from stages.curves import write_curves
from stages.jobs import Control, Job, run_jobs, worker_count
from stages.running import PARAMS, ParamsOption, stage
from stages.training import Trainer, initial_thetas, training


def main(
    dataset: Annotated[Path, typer.Argument(help="Task dataset of generate_tasks, e.g. data/sinusoid.")],
    output: Annotated[Path, typer.Argument(help="Folder to write, e.g. artifacts/sinusoid/maml.")],
    params: ParamsOption = PARAMS,
) -> None:
    """Meta-train MAML on sinusoids, once for each K in meta_train.shots, all seeds (settings: meta_train, network).

    Writes k<K>.safetensors (the meta-parameters of all seeds) and curves.tsv (the query loss after
    adaptation, mean over seeds, against meta-steps).
    """
    with (
        stage("meta_train@sinusoid-maml", params) as run,
        training(run, run.params.meta_train.meta_steps, _determinants(run.params, dataset)) as trainer,
        run.output(output) as folder,
    ):
        settings = run.params.meta_train
        family = load_distribution(dataset)
        # Longest first, so that no worker is left alone with the longest.
        by_length = sorted(settings.shots, reverse=True)
        jobs = [
            Job(f"MAML, K = {shots}", settings.meta_steps, meta_train, (run.params, family, shots, trainer))
            for shots in by_length
        ]
        results = dict(zip(by_length, run_jobs(jobs, worker_count(run.machine, len(jobs)), "meta-steps"), strict=True))
        for shots in settings.shots:
            _trained(run.params, shots, torch.from_numpy(results[shots][0]), trainer).save(
                folder / f"k{shots}.safetensors"
            )
        write_curves(folder / "curves.tsv", {f"k{shots}": results[shots][1] for shots in settings.shots})


def _determinants(params: Params, dataset: Path) -> dict[str, Any]:
    """Return the settings and data that determine what is trained."""
    return {
        "network": params.network.model_dump(mode="json"),
        "meta_train": params.meta_train.model_dump(mode="json"),
        "distribution": load_distribution(dataset).to_dict(),
    }


def meta_train(
    params: Params, family: Sinusoid, shots: int, trainer: Trainer, control: Control
) -> tuple[np.ndarray, dict[int, float]]:
    """Meta-train MAML with K = ``shots`` for all seeds; return phi ``[seeds, n_phi]`` and the training curve."""
    settings = params.meta_train
    architecture = _architecture(params)
    rule = GradientDescent(settings.inner_rate, settings.first_order)
    objective = query_loss_after_adaptation(mean_squared_error(architecture.network()), rule, settings.inner_steps)
    phi = initial_thetas(architecture, settings.seeds, params.network.initial_std)

    def draw(first: int, count: int) -> Episode:
        shape = (count, settings.meta_batch)
        episodes = [
            family.draw_episodes(generator(seed, f"meta-training episodes, K = {shots}", first), shape, shots, shots)
            for seed in settings.seeds
        ]
        return stack_seeds(episodes, trainer.device)

    adam = Adam(settings.learning_rate)
    return trainer.run(f"k{shots}", objective, adam, phi, draw, settings.meta_steps, settings.seeds, control)


def _architecture(params: Params) -> MLP:
    return MLP((1, *params.network.hidden, 1))


def _trained(params: Params, shots: int, phi: torch.Tensor, trainer: Trainer) -> TrainedMethod:
    settings = params.meta_train
    return TrainedMethod(
        method="maml",
        architecture=_architecture(params),
        phi=phi,
        seeds=settings.seeds,
        rule=GradientDescent(settings.inner_rate, settings.first_order),
        inner_steps=settings.inner_steps,
        train_shots=shots,
        settings={
            **params.network.model_dump(mode="json"),
            **settings.model_dump(mode="json"),
            "versions": versions(torch.device(trainer.device), trainer.backend),
        },
    )


if __name__ == "__main__":
    typer.run(main)
