"""Meta-train a learner on few-shot images: one initialisation, and one update rule, for every condition and seed."""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from metalib.config import (
    ClassifierAt,
    MetaTrainClassifierLSTMSettings,
    MetaTrainClassifierSettings,
    Params,
)
from metalib.losses import CrossEntropy, Episode, MinibatchEpisode, draw_order
from metalib.meta_parameters import join
from metalib.meta_training.objectives import QueryLossAfterAdaptation
from metalib.meta_training.supervised import stack_seeds
from metalib.randomness import generator
from metalib.tasks.image_classes import ImageClasses
from metalib.tasks.image_tasks import Condition, ImageTasks, load_classes, load_image_tasks
from metalib.trained_method import TrainedMethod, versions
from stages.curves import mean_curve, write_curves
from stages.image_networks import image_network
from stages.jobs import Control, Job, run_jobs, worker_count
from stages.running import PARAMS, ParamsOption, stage
from stages.training import Compilation, Trainer, initial_omegas, initial_thetas, outer_adam, training
from stages.update_rules import MetaLearner, compilation, trainer_rule, update_rule

CHUNK_STEPS = 20
"""Meta-steps a chunk: few, for they are slow and their images large."""
CONVOLUTIONS = Compilation(1_000)
"""Compiling the meta-step of conv4 takes a minute and saves about 50 ms a step."""

Settings = MetaTrainClassifierSettings | MetaTrainClassifierLSTMSettings


def main(
    method: Annotated[MetaLearner, typer.Argument(help="Which meta-learner.")],
    dataset: Annotated[Path, typer.Argument(help="Image tasks of generate_image_tasks, e.g. data/images.")],
    output: Annotated[Path, typer.Argument(help="Folder to write, e.g. artifacts/images/maml.")],
    params: ParamsOption = PARAMS,
) -> None:
    """Meta-train MAML (settings: meta_train_classifier) or the LSTM meta-learner (meta_train_classifier_lstm).

    Once for each way and shot of the image tasks, and each seed. Writes <way>way-<shot>shot.safetensors (the
    meta-parameters of all seeds) and curves.tsv (cross-entropy on query images after adaptation, mean over
    seeds, against meta-steps).
    """
    with stage(f"meta_train_classifier@{method}", params) as run:
        settings, tasks = _settings(run.params, method), load_image_tasks(dataset)
        with (
            training(
                run,
                settings.meta_steps,
                _determinants(run.params, method, dataset),
                compilation(settings.at(*tasks.conditions[0]).rule, CONVOLUTIONS),
            ) as trainer,
            run.output(output, dataset) as folder,
        ):
            cases = [(condition, seed) for seed in settings.seeds for condition in _longest_first(tasks)]
            jobs = [
                Job(
                    f"{method}, {condition.way}-way {condition.shot}-shot, seed {seed}",
                    settings.meta_steps,
                    meta_train,
                    (run.params, method, tasks, dataset, condition, seed, trainer),
                )
                for condition, seed in cases
            ]
            found = run_jobs(jobs, worker_count(run.machine, len(jobs)), "meta-steps")
            results = dict(zip(cases, found, strict=True))
            curves = {}
            for condition in tasks.conditions:
                each = [results[condition, seed] for seed in settings.seeds]
                phi = torch.from_numpy(np.stack([phi for phi, _ in each]))
                _trained(run.params, method, tasks, condition, phi, trainer).save(
                    folder / f"{condition.name}.safetensors"
                )
                curves[condition.name] = mean_curve([curve for _, curve in each])
            write_curves(folder / "curves.tsv", curves)


def _settings(params: Params, method: MetaLearner) -> Settings:
    return params.meta_train_classifier_lstm if method is MetaLearner.LSTM else params.meta_train_classifier


def _longest_first(tasks: ImageTasks) -> list[Condition]:
    """Return the conditions with the most images first, so that no worker is left alone with the longest."""
    return sorted(tasks.conditions, key=lambda condition: -condition.way * condition.shot)


def _determinants(params: Params, method: MetaLearner, dataset: Path) -> dict[str, Any]:
    """Return the settings and data that determine what is trained."""
    return {
        "method": method,
        "image_network": params.image_network.model_dump(mode="json"),
        "settings": _settings(params, method).model_dump(mode="json"),
        "tasks": load_image_tasks(dataset),
        "classes": load_classes(dataset, "train").fingerprint,
    }


def meta_train(
    params: Params,
    method: MetaLearner,
    tasks: ImageTasks,
    dataset: Path,
    condition: Condition,
    seed: int,
    trainer: Trainer,
    control: Control,
) -> tuple[np.ndarray, dict[int, float]]:
    """Meta-train for one condition and seed; return phi ``[n_phi]`` and the training curve."""
    settings = _settings(params, method)
    here = settings.at(*condition)
    architecture = image_network(params.image_network, tasks.image_shape, condition.way)
    rule, backend = trainer_rule(here.rule, trainer)
    objective = QueryLossAfterAdaptation(
        CrossEntropy(architecture.network()), rule, here.inner_steps, here.rule.learned_start
    )
    theta = initial_thetas(architecture, (seed,), params.image_network.initial_std)
    classes = load_classes(dataset, "train")

    def draw(first: int, count: int) -> Episode | MinibatchEpisode:
        episodes = _draw(here, classes, condition, tasks.queries, seed, first, count)
        return stack_seeds([episodes], trainer.device)

    adam = outer_adam(settings.learning_rate, settings.decay, settings.meta_steps, here.rule.clip_norm)
    phi, curve = trainer.run(
        f"{condition.name}-seed{seed}",
        objective,
        adam,
        join(theta, initial_omegas(rule, (seed,))),
        draw,
        settings.meta_steps,
        (seed,),
        control,
        backend,
        CHUNK_STEPS,
    )
    return phi[0], curve


def _draw(
    here: ClassifierAt, classes: ImageClasses, condition: Condition, queries: int, seed: int, first: int, count: int
) -> Episode | MinibatchEpisode:
    """Draw the episodes of ``count`` meta-steps from ``first``."""
    shape, name = (count, here.meta_batch), condition.name
    numbers = generator(seed, f"meta-training episodes, {name}", first)
    episodes = classes.episodes(classes.draw_episodes(numbers, shape, condition.way, condition.shot, queries))
    if here.rule.inner_batch == "all":
        return episodes
    numbers = generator(seed, f"meta-training inner batches, {name}", first)
    n_support = condition.way * condition.shot
    return MinibatchEpisode(*episodes, draw_order(numbers, shape, here.inner_steps, here.rule.inner_batch, n_support))


def _trained(
    params: Params, method: MetaLearner, tasks: ImageTasks, condition: Condition, phi: torch.Tensor, trainer: Trainer
) -> TrainedMethod:
    settings = _settings(params, method)
    here = settings.at(*condition)
    return TrainedMethod(
        method=method,
        architecture=image_network(params.image_network, tasks.image_shape, condition.way),
        loss="cross_entropy",
        phi=phi,
        seeds=settings.seeds,
        rule=update_rule(here.rule),
        inner_steps=here.inner_steps,
        train_shots=condition.shot,
        settings={
            **params.image_network.model_dump(mode="json"),
            **settings.model_dump(mode="json"),
            "versions": versions(torch.device(trainer.device), trainer.backend),
        },
    )


if __name__ == "__main__":
    typer.run(main)
