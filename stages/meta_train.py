"""Meta-train a learner: one initialisation for every K and seed."""

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from metalib.config import Params
from metalib.losses import Episode, mean_squared_error
from metalib.meta_training.adam import Adam
from metalib.meta_training.objectives import query_loss_after_adaptation
from metalib.meta_training.supervised import Chunk, stack_seeds, train
from metalib.networks import MLP
from metalib.randomness import generator
from metalib.storage import read_json
from metalib.tasks import Sinusoid
from metalib.trained_method import TrainedMethod, versions
from metalib.update_rules import GradientDescent
from stages.curves import CurveRecorder, write_curves
from stages.jobs import Advance, Job, run_jobs, worker_count
from stages.running import PARAMS, ParamsOption, choose_device, stage


def main(
    dataset: Annotated[Path, typer.Argument(help="Task dataset of generate_tasks, e.g. data/sinusoid.")],
    output: Annotated[Path, typer.Argument(help="Folder to write, e.g. artifacts/sinusoid/maml.")],
    params: ParamsOption = PARAMS,
) -> None:
    """Meta-train MAML on sinusoids, once for each K in meta_train.shots, all seeds (settings: meta_train, network).

    Writes k<K>.safetensors (the meta-parameters of all seeds) and curves.tsv (the query loss after
    adaptation, mean over seeds, against meta-steps).
    """
    with stage("meta_train@sinusoid-maml", params) as run, run.output(output) as folder:
        settings = run.params.meta_train
        family = Sinusoid.from_dict(read_json(dataset / "distribution.json")["family"])
        device = choose_device(run.machine)
        jobs = [
            Job(
                f"MAML, K = {shots}",
                settings.meta_steps,
                meta_train,
                (run.params, family, shots, str(device)),
            )
            for shots in settings.shots
        ]
        results = run_jobs(jobs, worker_count(run.machine, len(jobs)), "meta-steps")
        for shots, (phi, _) in zip(settings.shots, results, strict=True):
            _trained(run.params, shots, torch.from_numpy(phi), device).save(folder / f"k{shots}.safetensors")
        curves = {f"k{shots}": curve for shots, (_, curve) in zip(settings.shots, results, strict=True)}
        write_curves(folder / "curves.tsv", curves)


def meta_train(
    params: Params, family: Sinusoid, shots: int, device: str, advance: Advance
) -> tuple[np.ndarray, dict[int, float]]:
    """Meta-train MAML with K = ``shots`` for all seeds; return phi ``[seeds, n_phi]`` and the training curve."""
    settings = params.meta_train
    architecture = _architecture(params)
    rule = GradientDescent(settings.inner_rate, settings.first_order)
    objective = query_loss_after_adaptation(mean_squared_error(architecture.network()), rule, settings.inner_steps)
    initial = torch.stack(
        [architecture.initial_theta(generator(s, "initial theta"), params.network.initial_std) for s in settings.seeds]
    )

    def draw(first: int, count: int) -> Episode:
        shape = (count, settings.meta_batch)
        episodes = [
            family.draw_episodes(generator(seed, f"meta-training episodes, K = {shots}", first), shape, shots, shots)
            for seed in settings.seeds
        ]
        return stack_seeds(episodes, device)

    curve = CurveRecorder()
    adam = Adam(settings.learning_rate)
    chunk: Chunk
    for chunk in train(objective, adam, initial.to(device), draw, settings.meta_steps, settings.seeds):
        curve.record(chunk)
        advance(chunk.steps)
    return chunk.state.phi.cpu().numpy(), curve.points


def _architecture(params: Params) -> MLP:
    return MLP((1, *params.network.hidden, 1))


def _trained(params: Params, shots: int, phi: torch.Tensor, device: torch.device) -> TrainedMethod:
    settings = params.meta_train
    return TrainedMethod(
        method="maml",
        architecture=_architecture(params),
        phi=phi,
        seeds=settings.seeds,
        rule=GradientDescent(settings.inner_rate, settings.first_order),
        inner_steps=settings.inner_steps,
        train_shots=shots,
        settings={**settings.model_dump(mode="json"), "versions": versions(device)},
    )


if __name__ == "__main__":
    typer.run(main)
