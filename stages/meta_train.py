"""Meta-train a learner on sinusoids: one initialisation, and one update rule, for every K and seed."""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from metalib.config import MetaTrainLSTMSettings, MetaTrainSettings, Params
from metalib.losses import Episode, MeanSquaredError, MinibatchEpisode, draw_order
from metalib.meta_parameters import join
from metalib.meta_training.objectives import QueryLossAfterAdaptation
from metalib.meta_training.supervised import stack_seeds
from metalib.networks import MLP
from metalib.randomness import generator
from metalib.tasks import Sinusoid, SinusoidPool
from metalib.tasks.dataset import load_distribution
from metalib.trained_method import TrainedMethod, versions
from stages.curves import mean_curve, write_curves
from stages.jobs import Control, Job, run_jobs, worker_count
from stages.mlp_kernel import mlp_compilation, with_mlp_kernel
from stages.running import PARAMS, ParamsOption, stage
from stages.training import Trainer, initial_omegas, initial_thetas, outer_adam, training
from stages.update_rules import MetaLearner, compilation, trainer_rule, update_rule

Settings = MetaTrainSettings | MetaTrainLSTMSettings


def main(
    method: Annotated[MetaLearner, typer.Argument(help="Which meta-learner.")],
    dataset: Annotated[Path, typer.Argument(help="Task dataset of generate_tasks, e.g. data/sinusoid.")],
    output: Annotated[Path, typer.Argument(help="Folder to write, e.g. artifacts/sinusoid/maml.")],
    params: ParamsOption = PARAMS,
) -> None:
    """Meta-train MAML (settings: meta_train) or the LSTM meta-learner (meta_train_lstm), once for each K, all seeds.

    Writes k<K>.safetensors (the meta-parameters of all seeds) and curves.tsv (the query loss after
    adaptation, mean over seeds, against meta-steps).
    """
    with stage(f"meta_train@sinusoid-{method}", params) as run:
        settings, network = _settings(run.params, method), architecture_of(run.params)
        with (
            training(
                run,
                settings.meta_steps,
                _determinants(run.params, method, dataset),
                compilation(settings, mlp_compilation([network], settings.inner_steps, settings.shots)),
            ) as trainer,
            run.output(output, dataset) as folder,
        ):
            family = load_distribution(dataset)
            # Longest first, so that no worker is left alone with the longest.
            groups = seed_groups(method, settings.seeds, trainer)
            cases = [(shots, seeds) for seeds in groups for shots in sorted(settings.shots, reverse=True)]
            jobs = [
                Job(
                    f"{method}, K = {shots}, {_named(seeds)}",
                    settings.meta_steps,
                    meta_train,
                    (run.params, method, family, shots, seeds, trainer),
                )
                for shots, seeds in cases
            ]
            found = run_jobs(jobs, worker_count(run.machine, len(jobs)), "meta-steps")
            results = dict(zip(cases, found, strict=True))
            curves = {}
            for shots in settings.shots:
                each = [results[shots, seeds] for seeds in groups]
                phi = torch.from_numpy(np.concatenate([phi for phi, _ in each]))
                trained_method(run.params, method, shots, phi, trainer).save(folder / f"k{shots}.safetensors")
                curves[f"k{shots}"] = mean_curve([curve for _, curve in each])
            write_curves(folder / "curves.tsv", curves)


def _settings(params: Params, method: MetaLearner) -> Settings:
    return params.meta_train_lstm if method is MetaLearner.LSTM else params.meta_train


def seed_groups(method: MetaLearner, seeds: tuple[int, ...], trainer: Trainer) -> list[tuple[int, ...]]:
    """Return which seeds of a K are trained in one program.

    Each by itself where the arithmetic is what takes time: compiled for the CPU, and the LSTM rule there. All together
    for MAML run eagerly, and on CUDA, where starting operations takes longer than computing them.
    """
    if trainer.device == "cuda" or (trainer.backend == "eager" and method is MetaLearner.MAML):
        return [seeds]
    return [(seed,) for seed in seeds]


def _named(seeds: tuple[int, ...]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def _determinants(params: Params, method: MetaLearner, dataset: Path) -> dict[str, Any]:
    """Return the settings and data that determine what is trained."""
    return {
        "method": method,
        "network": params.network.model_dump(mode="json"),
        "meta_train": _settings(params, method).model_dump(mode="json"),
        "distribution": load_distribution(dataset).to_dict(),
    }


def meta_train(
    params: Params,
    method: MetaLearner,
    family: Sinusoid | SinusoidPool,
    shots: int,
    seeds: tuple[int, ...],
    trainer: Trainer,
    control: Control,
    prefix: str = "",
) -> tuple[np.ndarray, dict[int, float]]:
    """Meta-train with K = ``shots``; return phi ``[seeds, n_phi]`` and the training curve, a mean over the seeds.

    ``prefix`` begins the name of the saved state, where a stage trains several learners of one K.
    """
    settings = _settings(params, method)
    architecture = architecture_of(params)
    rule, backend = trainer_rule(settings, trainer)
    objective = QueryLossAfterAdaptation(
        MeanSquaredError(architecture.network()), rule, settings.inner_steps, settings.learned_start
    )
    theta = initial_thetas(architecture, seeds, params.network.initial_std)
    phi = join(theta, initial_omegas(rule, seeds))

    def draw(first: int, count: int) -> Episode | MinibatchEpisode:
        drawn = [_draw(settings, family, shots, seed, first, count, trainer.device) for seed in seeds]
        return stack_seeds(drawn, trainer.device)

    adam = outer_adam(settings.learning_rate, settings.decay, settings.meta_steps, settings.clip_norm, settings.epsilon)
    name = prefix + "-".join([f"k{shots}", *(f"seed{seed}" for seed in seeds)])
    return trainer.run(
        name,
        objective,
        adam,
        phi,
        draw,
        settings.meta_steps,
        seeds,
        control,
        with_mlp_kernel(backend, trainer),
        averaged_share=settings.averaged_share,
    )


def _draw(
    settings: Settings, family: Sinusoid | SinusoidPool, shots: int, seed: int, first: int, count: int, device: str
) -> Episode | MinibatchEpisode:
    """Draw one seed's episodes for ``count`` meta-steps from ``first``; the same for every meta-learner."""
    shape = (count, settings.meta_batch)
    numbers = generator(seed, f"meta-training episodes, K = {shots}", first, device)
    episodes = family.draw_episodes(numbers, shape, shots, shots)
    if settings.inner_batch == "all":
        return episodes
    numbers = generator(seed, f"meta-training inner batches, K = {shots}", first, device)
    return MinibatchEpisode(*episodes, draw_order(numbers, shape, settings.inner_steps, settings.inner_batch, shots))


def architecture_of(params: Params) -> MLP:
    """Return the learner's network."""
    return MLP((1, *params.network.hidden, 1))


def trained_method(
    params: Params, method: MetaLearner, shots: int, phi: torch.Tensor, trainer: Trainer
) -> TrainedMethod:
    """Return what training leaves behind, with phi ``[seeds, n_phi]``."""
    settings = _settings(params, method)
    return TrainedMethod(
        method=method,
        architecture=architecture_of(params),
        loss="mean_squared_error",
        phi=phi,
        seeds=settings.seeds,
        rule=update_rule(settings),
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
