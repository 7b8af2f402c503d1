"""Train a method that has no inner loop: pretrained, oracle, or scratch (which is not trained at all)."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from metalib.config import Params
from metalib.losses import Batch, MeanSquaredError
from metalib.meta_training.adam import Adam
from metalib.meta_training.objectives import LossWithoutAdaptation
from metalib.meta_training.supervised import stack_seeds
from metalib.networks import MLP
from metalib.randomness import generator
from metalib.tasks import Sinusoid
from metalib.tasks.dataset import load_distribution
from metalib.trained_method import TrainedMethod, versions
from stages.curves import write_curves
from stages.jobs import Control, Job, run_jobs
from stages.mlp_kernel import mlp_compilation, with_mlp_kernel
from stages.running import PARAMS, ParamsOption, stage
from stages.training import Trainer, initial_thetas, training


class Method(StrEnum):
    """The baselines."""

    PRETRAINED = "pretrained"
    ORACLE = "oracle"
    SCRATCH = "scratch"


def main(
    method: Annotated[Method, typer.Argument(help="Which baseline.")],
    dataset: Annotated[Path, typer.Argument(help="Task dataset of generate_tasks, e.g. data/sinusoid.")],
    output: Annotated[Path, typer.Argument(help="Folder to write, e.g. artifacts/sinusoid/pretrained.")],
    params: ParamsOption = PARAMS,
) -> None:
    """Train a baseline on sinusoids (settings: train_baseline, network).

    pretrained: one network for all tasks, plain Adam. oracle: the same, told amplitude and phase with
    each input. scratch: the random initialisation, untrained; it is fine-tuned at evaluation only.
    Writes weights.safetensors (all seeds) and curves.tsv (training loss, mean over seeds, against steps).
    """
    with (
        stage(f"train_baseline@sinusoid-{method}", params) as run,
        training(
            run,
            run.params.train_baseline.steps,
            _determinants(run.params, method, dataset),
            mlp_compilation([_architecture(run.params, method)]),
        ) as trainer,
        run.output(output, dataset) as folder,
    ):
        settings = run.params.train_baseline
        family = load_distribution(dataset)
        steps = 0 if method is Method.SCRATCH else settings.steps
        job = Job(method, steps, train_baseline, (run.params, family, method, steps, trainer))
        phi, curve = run_jobs([job], 1, "steps")[0]
        TrainedMethod(
            method=method,
            architecture=_architecture(run.params, method),
            loss="mean_squared_error",
            phi=torch.from_numpy(phi),
            seeds=settings.seeds,
            rule=None,
            inner_steps=0,
            train_shots=None,
            settings={
                **run.params.network.model_dump(mode="json"),
                **({} if method is Method.SCRATCH else settings.model_dump(mode="json")),
                "seeds": list(settings.seeds),
                "steps": steps,
                "versions": versions(torch.device(trainer.device), trainer.backend),
            },
        ).save(folder / "weights.safetensors")
        write_curves(folder / "curves.tsv", {"loss": curve})


def _determinants(params: Params, method: Method, dataset: Path) -> dict[str, Any]:
    """Return the settings and data that determine what is trained."""
    return {
        "method": method,
        "network": params.network.model_dump(mode="json"),
        "train_baseline": params.train_baseline.model_dump(mode="json"),
        "distribution": load_distribution(dataset).to_dict(),
    }


def train_baseline(
    params: Params, family: Sinusoid, method: Method, steps: int, trainer: Trainer, control: Control
) -> tuple[np.ndarray, dict[int, float]]:
    """Train one baseline for all seeds; return theta ``[seeds, n_parameters]`` and the training curve."""
    settings = params.train_baseline
    architecture = _architecture(params, method)
    objective = LossWithoutAdaptation(MeanSquaredError(architecture.network()))
    theta = initial_thetas(architecture, settings.seeds, params.network.initial_std)

    def draw(first: int, count: int) -> Batch:
        shape = (count, settings.meta_batch)
        batches = []
        for seed in settings.seeds:
            numbers = generator(seed, f"{method} training examples", first, trainer.device)
            tasks, examples = family.draw_examples(numbers, shape, settings.points)
            told = tasks.oracle_inputs(examples.x) if method is Method.ORACLE else examples.x
            batches.append(Batch(told, examples.y))
        return stack_seeds(batches, trainer.device)

    adam = Adam(settings.learning_rate)
    backend = with_mlp_kernel(trainer.loop_backend(), trainer)
    return trainer.run(method, objective, adam, theta, draw, steps, settings.seeds, control, backend)


def _architecture(params: Params, method: Method) -> MLP:
    n_inputs = 3 if method is Method.ORACLE else 1
    return MLP((n_inputs, *params.network.hidden, 1))


if __name__ == "__main__":
    typer.run(main)
