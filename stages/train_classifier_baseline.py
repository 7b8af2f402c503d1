"""Train what MAML is compared with on few-shot images: pretrained, prototypical, or scratch (not trained at all)."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from metalib.config import Params
from metalib.losses import Batch, CrossEntropy, Episode
from metalib.meta_training.adam import Adam
from metalib.meta_training.objectives import LossWithoutAdaptation, Objective
from metalib.meta_training.supervised import DrawChunk, stack_seeds
from metalib.metric_learning import prototypical_loss
from metalib.networks import Architecture
from metalib.randomness import generator
from metalib.tasks.image_classes import ImageClasses
from metalib.tasks.image_tasks import Condition, ImageTasks, load_classes, load_image_tasks
from metalib.trained_method import TrainedMethod, versions
from stages.curves import mean_curve, write_curves
from stages.image_networks import image_network
from stages.jobs import Control, Job, run_jobs, worker_count
from stages.running import PARAMS, ParamsOption, stage
from stages.training import NEVER, Compilation, Trainer, initial_thetas, training

CHUNK_STEPS = 20
"""Steps a chunk: few, for their images are large."""


class Method(StrEnum):
    """The trained baselines."""

    PRETRAINED = "pretrained"
    PROTOTYPICAL = "prototypical"
    SCRATCH = "scratch"


USED = {
    Method.PRETRAINED: {"learning_rate", "images"},
    Method.PROTOTYPICAL: {"learning_rate", "episodes"},
    Method.SCRATCH: set[str](),
}
"""Settings that a baseline's training uses, beside the seeds and its own number of steps."""


def main(
    method: Annotated[Method, typer.Argument(help="Which baseline.")],
    dataset: Annotated[Path, typer.Argument(help="Image tasks of generate_image_tasks, e.g. data/images.")],
    output: Annotated[Path, typer.Argument(help="Folder to write, e.g. artifacts/images/pretrained.")],
    params: ParamsOption = PARAMS,
) -> None:
    """Train a baseline on few-shot images (settings: train_classifier_baseline, image_network).

    pretrained: one classifier of all training classes, plain Adam; its head is replaced at evaluation.
    prototypical: features in which the mean of a class's support images is nearest (Snell et al. 2017), once for
    each condition. scratch: the random initialisation. Writes weights (all seeds) and curves.tsv.
    """
    with (
        stage(f"train_classifier_baseline@{method}", params) as run,
        training(
            run, _steps(run.params, method), _determinants(run.params, method, dataset), Compilation(NEVER)
        ) as trainer,
        run.output(output, dataset) as folder,
    ):
        tasks = load_image_tasks(dataset)
        # A prototypical network is trained for each condition, the others once for all.
        conditions = list(tasks.conditions) if method is Method.PROTOTYPICAL else [None]
        seeds = run.params.train_classifier_baseline.seeds
        cases = [(condition, seed) for seed in seeds for condition in conditions]
        jobs = [
            Job(
                f"{method}{f', {condition.name}' if condition else ''}, seed {seed}",
                _steps(run.params, method),
                train_baseline,
                (run.params, method, tasks, dataset, condition, seed, trainer),
            )
            for condition, seed in cases
        ]
        found = dict(zip(cases, run_jobs(jobs, worker_count(run.machine, len(jobs)), "steps"), strict=True))
        curves = {}
        for condition in conditions:
            each = [found[condition, seed] for seed in seeds]
            phi = torch.from_numpy(np.stack([phi for phi, _ in each]))
            trained = _trained(run.params, method, tasks, dataset, condition, phi, trainer)
            trained.save(folder / f"{_name(condition)}.safetensors")
            curves[_name(condition)] = mean_curve([curve for _, curve in each])
        write_curves(folder / "curves.tsv", curves)


def _name(condition: Condition | None) -> str:
    return condition.name if condition else "weights"


def _steps(params: Params, method: Method) -> int:
    settings = params.train_classifier_baseline
    return {
        Method.PRETRAINED: settings.pretrained_steps,
        Method.PROTOTYPICAL: settings.prototypical_steps,
        Method.SCRATCH: 0,
    }[method]


def _determinants(params: Params, method: Method, dataset: Path) -> dict[str, Any]:
    """Return the settings and data that determine what is trained."""
    return {
        "method": method,
        "image_network": params.image_network.model_dump(mode="json"),
        "settings": params.train_classifier_baseline.model_dump(mode="json"),
        "tasks": load_image_tasks(dataset),
        "classes": load_classes(dataset, "train").fingerprint,
    }


def train_baseline(
    params: Params,
    method: Method,
    tasks: ImageTasks,
    dataset: Path,
    condition: Condition | None,
    seed: int,
    trainer: Trainer,
    control: Control,
) -> tuple[np.ndarray, dict[int, float]]:
    """Train one baseline for one seed; return theta ``[n_parameters]`` and the training curve."""
    settings, classes = params.train_classifier_baseline, load_classes(dataset, "train")
    architecture = _architecture(params, method, tasks, len(classes.images))
    theta = initial_thetas(architecture, (seed,), params.image_network.initial_std)
    objective: Objective
    if condition is None:
        objective = LossWithoutAdaptation(CrossEntropy(architecture.network()))
        draw = _draw_images(classes, settings.images, seed, trainer)
    else:
        objective = prototypical_loss(architecture.network(), condition.way)
        draw = _draw_episodes(classes, condition, tasks.queries, settings.episodes, seed, trainer)
    trained, curve = trainer.run(
        f"{_name(condition)}-seed{seed}",
        objective,
        Adam(settings.learning_rate),
        theta,
        draw,
        _steps(params, method),
        (seed,),
        control,
        trainer.loop_backend(),
        CHUNK_STEPS,
    )
    return trained[0], curve


def _draw_images(classes: ImageClasses, n_images: int, seed: int, trainer: Trainer) -> DrawChunk:
    def draw(first: int, count: int) -> Batch:
        # One "task" a step: a batch of images of any class.
        shape = (count, 1, n_images)
        drawn = classes.draw_examples(generator(seed, "pretraining images", first), shape)
        return stack_seeds([drawn], trainer.device)

    return draw


def _draw_episodes(
    classes: ImageClasses,
    condition: Condition,
    queries: int,
    n_episodes: int,
    seed: int,
    trainer: Trainer,
) -> DrawChunk:
    def draw(first: int, count: int) -> Episode:
        purpose = f"prototypical training episodes, {condition.name}"
        numbers = generator(seed, purpose, first)
        drawn = classes.draw_episodes(numbers, (count, n_episodes), *condition, queries)
        return stack_seeds([classes.episodes(drawn)], trainer.device)

    return draw


def _architecture(params: Params, method: Method, tasks: ImageTasks, n_classes: int) -> Architecture:
    """Return the network: features alone for the prototypical one, else one output for each training class."""
    n_outputs = 0 if method is Method.PROTOTYPICAL else n_classes
    return image_network(params.image_network, tasks.image_shape, n_outputs)


def _trained(
    params: Params,
    method: Method,
    tasks: ImageTasks,
    dataset: Path,
    condition: Condition | None,
    phi: torch.Tensor,
    trainer: Trainer,
) -> TrainedMethod:
    settings = params.train_classifier_baseline
    return TrainedMethod(
        method=method,
        architecture=_architecture(params, method, tasks, len(load_classes(dataset, "train").images)),
        loss="cross_entropy",
        phi=phi,
        seeds=settings.seeds,
        rule=None,
        inner_steps=0,
        train_shots=condition.shot if condition else None,
        settings={
            **params.image_network.model_dump(mode="json"),
            **settings.model_dump(mode="json", include=USED[method]),
            "seeds": list(settings.seeds),
            "steps": _steps(params, method),
            "versions": versions(torch.device(trainer.device), trainer.backend),
        },
    )


if __name__ == "__main__":
    typer.run(main)
