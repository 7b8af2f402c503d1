"""Evaluate a trained method on the frozen test tasks: its error before and after each gradient step."""

from pathlib import Path
from typing import Annotated

import typer
from torch import Tensor

from metalib.config import EvaluateSettings
from metalib.evaluation import adaptation_scores, choose_rate, predictions
from metalib.losses import Batch, Loss, MeanSquaredError
from metalib.score_files import ILLUSTRATION_SCHEMA, RATES_SCHEMA, Scores, save_scores
from metalib.storage import StorageError, save_tensors, write_checked_json
from metalib.tasks.dataset import TaskSet, first_points, load_task_set
from metalib.trained_method import TrainedMethod
from metalib.update_rules import GradientDescent, UpdateRule, rate_name
from stages.jobs import Control, Job, run_jobs, worker_count
from stages.running import PARAMS, ParamsOption, Run, stage
from stages.update_rules import evaluation_rule


def main(
    dataset: Annotated[Path, typer.Argument(help="Task dataset of generate_tasks, e.g. data/sinusoid.")],
    trained: Annotated[Path, typer.Argument(help="Trained method, e.g. artifacts/sinusoid/maml.")],
    output: Annotated[Path, typer.Argument(help="Folder to write, e.g. artifacts/sinusoid/scores/maml.")],
    params: ParamsOption = PARAMS,
) -> None:
    """Score every trained K of a method at every test K (settings: evaluate).

    A baseline that is fine-tuned first chooses its rate for each K on the validation tasks. Writes
    scores.safetensors (errors by seed, task and gradient step), illustrations.safetensors (predictions
    for the figures) and rates.json (the rates tried on validation tasks, and the chosen).
    """
    with stage(f"evaluate@sinusoid-{trained.name}", params) as run, run.output(output, dataset, trained) as folder:
        settings = run.params.evaluate
        paths = sorted(trained.glob("*.safetensors"))
        if not paths:
            raise StorageError(f"{trained} holds no trained method; run the stage that writes it (`dvc repro`)")
        methods = [TrainedMethod.load(path) for path in paths]
        for name in ("validation", "test", "illustrations"):
            # refuse a dataset that is damaged or too small before any work
            load_task_set(dataset / f"{name}.safetensors").shots(max(settings.shots))
        cases = [(path, method, k) for path, method in zip(paths, methods, strict=True) for k in settings.shots]
        jobs = [Job(_label(method, k), 3, evaluate, (run, path, dataset, k)) for path, method, k in cases]
        results = run_jobs(jobs, worker_count(run.machine, len(jobs)), "parts")
        save_scores(
            folder / "scores.safetensors",
            [s for scores, _, _ in results for s in scores],
            methods[0].settings,
        )
        drawn = {name: tensor for _, pictures, _ in results for name, tensor in pictures.items()}
        save_tensors(folder / "illustrations.safetensors", ILLUSTRATION_SCHEMA, drawn, {"axes": ["task", "step", "x"]})
        tried = {f"k{k}": rates for (_, _, k), (_, _, rates) in zip(cases, results, strict=True) if rates}
        write_checked_json(folder / "rates.json", RATES_SCHEMA, tried)


def evaluate(
    run: Run, path: Path, dataset: Path, shots: int, control: Control
) -> tuple[list[Scores], dict[str, Tensor], dict[str, float | None]]:
    """Evaluate one trained method at K = ``shots``; return scores, predictions for figures, and rates tried."""
    control.advance(0)
    settings = run.params.evaluate
    method = TrainedMethod.load(path)
    test = load_task_set(dataset / "test.safetensors")
    illustrations = load_task_set(dataset / "illustrations.safetensors")
    loss = MeanSquaredError(method.architecture.network())
    if method.method == "oracle":
        return _evaluate_oracle(method, loss, test, shots), {}, {}
    rule, rates = _rule(settings, method, loss, dataset, shots)
    control.advance(1)
    support, queries = test.shots(shots), [test.query, first_points(test.query, shots)]
    fast = evaluation_rule(rule, run.machine)
    values = adaptation_scores(loss, fast, method.phi, support, queries, settings.gradient_steps)
    control.advance(2)
    scores = [
        Scores(method.method, method.train_shots, shots, query.x.shape[-2], getattr(rule, "rate", None), value)
        for query, value in zip(queries, values, strict=True)
    ]
    pictures = {}
    if method.train_shots in (None, shots):
        learner = method.learner(0, rule)
        drawn = predictions(learner, illustrations.shots(shots), illustrations.query.x, settings.gradient_steps)
        pictures[f"k{shots}"] = drawn
    control.advance(3)
    return scores, pictures, rates


def _rule(
    settings: EvaluateSettings, method: TrainedMethod, loss: Loss, dataset: Path, shots: int
) -> tuple[UpdateRule, dict[str, float | None]]:
    """Return the method's own rule, or gradient descent at the rate that is best on the validation tasks."""
    if method.rule is not None:
        return method.rule, {}
    validation = load_task_set(dataset / "validation.safetensors")
    rate, errors = choose_rate(
        loss,
        settings.finetune_rates,
        method.phi,
        validation.shots(shots),
        validation.query,
        settings.gradient_steps,
        settings.diverged_above,
    )
    tried = {rate_name(r): (error if error < float("inf") else None) for r, error in errors.items()}
    return GradientDescent(rate), {"chosen": rate, **tried}


def _evaluate_oracle(method: TrainedMethod, loss: Loss, test: TaskSet, shots: int) -> list[Scores]:
    """Score the oracle, which is told amplitude and phase and does not adapt: step 0 only."""
    told = Batch(test.tasks.oracle_inputs(test.query.x), test.query.y)
    queries = [told, first_points(told, shots)]
    no_support = Batch(told.x[:, :0], told.y[:, :0])
    values = adaptation_scores(loss, GradientDescent(1.0), method.phi, no_support, queries, 0)
    return [
        Scores("oracle", None, shots, query.x.shape[-2], None, value)
        for query, value in zip(queries, values, strict=True)
    ]


def _label(method: TrainedMethod, shots: int) -> str:
    trained = f" trained at K = {method.train_shots}," if method.train_shots else ""
    return f"{method.method},{trained} tested at K = {shots}"


if __name__ == "__main__":
    typer.run(main)
