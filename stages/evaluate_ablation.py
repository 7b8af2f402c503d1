"""Evaluate the learners of the ablation on the test tasks, and the main ones on tasks unlike those of training."""

from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor

from metalib.config import Params
from metalib.evaluation import adaptation_scores
from metalib.losses import MeanSquaredError
from metalib.randomness import generator
from metalib.score_files import OUTSIDE, RATES_SCHEMA, ConditionScores, save_condition_scores
from metalib.storage import StorageError, read_checked_json
from metalib.tasks import Sinusoid
from metalib.tasks.dataset import TaskSet, draw_task_set, load_task_set
from metalib.trained_method import TrainedMethod
from stages.ablation import Variant, variants
from stages.jobs import Control, Job, run_jobs, worker_count
from stages.running import PARAMS, ParamsOption, Run, stage
from stages.update_rules import evaluation_rule, rule_at_test

COMPARED = ("maml", "lstm", "pretrained")
"""Methods that are tested on tasks unlike those of training."""


def main(
    dataset: Annotated[Path, typer.Argument(help="Task dataset of generate_tasks, e.g. data/sinusoid.")],
    artifacts: Annotated[Path, typer.Argument(help="Trained methods and scores, e.g. artifacts/sinusoid.")],
    output: Annotated[Path, typer.Argument(help="Folder to write, e.g. artifacts/sinusoid/scores/ablation.")],
    params: ParamsOption = PARAMS,
) -> None:
    """Score every condition of the ablation (settings: ablation, evaluate).

    Training tasks, layers and units: the learners of meta_train_ablation on the frozen test tasks. Outside: MAML, the
    LSTM meta-learner and the pretrained network, at the rate chosen for it on validation tasks like those of training,
    on as many tasks whose amplitudes or phases training never met. Writes scores.safetensors.
    """
    with stage("evaluate_ablation", params) as run, run.output(output, dataset, artifacts) as folder:
        test = load_task_set(dataset / "test.safetensors")
        test.shots(run.params.ablation.shots)  # refuse a dataset that is too small before any work
        trained = {v: _load(artifacts / "ablation" / f"{v.name}.safetensors") for v in variants(run.params).values()}
        main_methods = {method: _load(_main_file(artifacts, method, run.params)) for method in COMPARED}
        outside = _tasks_outside(run.params)
        jobs = [Job(v.name, 1, score, (run, method, None, test)) for v, method in trained.items()]
        jobs += [
            Job(f"{method}, {name}", 1, score, (run, main_methods[method], _rate(artifacts, method, run.params), tasks))
            for name, tasks in outside.items()
            for method in COMPARED
        ]
        found = run_jobs(jobs, worker_count(run.machine, len(jobs)), "conditions")
        of_variants: dict[Variant, Tensor] = dict(zip(trained, found[: len(trained)], strict=True))
        zero = _zero_function(test)
        scores = [
            ConditionScores(experiment, condition, "maml", zero, of_variants[variant])
            for (experiment, condition), variant in variants(run.params).items()
        ]
        values = iter(found[len(trained) :])
        for name, tasks in outside.items():
            zero = _zero_function(tasks)
            scores += [ConditionScores(OUTSIDE, name, method, zero, next(values)) for method in COMPARED]
        save_condition_scores(folder / "scores.safetensors", scores, run.params.ablation.model_dump(mode="json"))


def _load(path: Path) -> TrainedMethod:
    if not path.is_file():
        raise StorageError(f"there is no {path}; run the stage that writes it (`dvc repro`)")
    return TrainedMethod.load(path)


def _main_file(artifacts: Path, method: str, params: Params) -> Path:
    """Return the file of a method of the main experiment: one for all K, or that of the ablation's K."""
    name = "weights" if method == "pretrained" else f"k{params.ablation.shots}"
    return artifacts / method / f"{name}.safetensors"


def _rate(artifacts: Path, method: str, params: Params) -> float | None:
    """Return the rate that evaluation chose for a method that brings none."""
    if method != "pretrained":
        return None
    tried = read_checked_json(artifacts / "scores" / method / "rates.json", RATES_SCHEMA)
    return float(tried[f"k{params.ablation.shots}"]["chosen"])


def _families_outside(params: Params) -> dict[str, Sinusoid]:
    """Return the task distributions of the experiment "outside": that of training, and others that it never met."""
    inside, outside = params.generate_tasks, params.ablation.outside
    return {
        "as in training": Sinusoid(inside.amplitude, inside.phase, inside.x),
        "amplitude outside": Sinusoid(outside.amplitude, inside.phase, inside.x),
        "phase outside": Sinusoid(inside.amplitude, outside.phase, inside.x),
        "both outside": Sinusoid(outside.amplitude, outside.phase, inside.x),
    }


def _tasks_outside(params: Params) -> dict[str, TaskSet]:
    """Return as many tasks of each family as there are test tasks; the same draws, scaled to the family's ranges."""
    settings = params.generate_tasks
    return {
        name: draw_task_set(
            family,
            generator(settings.seed, "tasks of the ablation"),
            settings.test_tasks,
            params.ablation.shots,
            settings.query_points,
        )
        for name, family in _families_outside(params).items()
    }


def score(run: Run, method: TrainedMethod, rate: float | None, tasks: TaskSet, control: Control) -> Tensor:
    """Return the errors of every seed, task and gradient step, ``[seed, task, gradient_step]``."""
    control.advance(0)
    rule = rule_at_test(method, rate)
    loss = MeanSquaredError(method.architecture.network())
    support = tasks.shots(run.params.ablation.shots)
    fast, steps = evaluation_rule(rule, run.machine), run.params.evaluate.gradient_steps
    (values,) = adaptation_scores(loss, fast, method.phi, support, [tasks.query], steps)
    control.advance(1)
    return values


def _zero_function(tasks: TaskSet) -> float:
    return float(torch.mean(tasks.query.y.double() ** 2))


if __name__ == "__main__":
    typer.run(main)
