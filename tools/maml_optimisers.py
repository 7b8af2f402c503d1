"""Train MAML on sinusoids with several optimisers of the outer loop, and compare errors on held-out tasks."""

import json
import shutil
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer
from ruamel.yaml import YAML

from benchmarks.machine import facts
from metalib.evaluation import adaptation_scores
from metalib.losses import MeanSquaredError
from metalib.randomness import generator
from metalib.reporting.page import markdown_table
from metalib.reporting.tables import error_rows
from metalib.tasks.dataset import load_task_set
from metalib.trained_method import TrainedMethod
from tools.results import RUN, put_in_place, refuse_other_folder
from tools.trial import ROOT, run_stage

FOLDER = ROOT / ".cache" / "maml-optimisers"
DATASET = ROOT / "data" / "sinusoid"
DIVERGED_ABOVE = 100.0
BOOTSTRAP_SAMPLES = 2000
STEPS = (1, 5, 10)
TESTED_ON = {"validation": "validation tasks", "test": "test tasks"}

OPTIMISERS: list[dict[str, Any]] = [
    {"learning_rate": rate, "epsilon": epsilon, "decay": decay, "averaged_share": share}
    for rate, epsilon, decay, share in [
        (0.001, 1e-8, "none", 0.0),  # as published
        (0.001, 1e-8, "none", 0.25),
        (0.001, 1e-5, "none", 0.0),
        (0.001, 1e-5, "none", 0.25),
        (0.01, 0.01, "none", 0.0),
        (0.01, 0.01, "late_cosine", 0.0),
        (0.01, 0.01, "none", 0.25),
        (0.02, 0.01, "none", 0.0),
        (0.02, 0.01, "none", 0.25),
        (0.04, 0.01, "none", 0.25),
        (0.08, 0.01, "none", 0.25),
    ]
]


def main(
    shots: Annotated[int, typer.Option(min=1, help="K of training.")] = 10,
    test_shots: Annotated[str, typer.Option(help="K at test, separated by commas.")] = "5,10",
    meta_steps: Annotated[int, typer.Option(min=100, help="Meta-steps of each optimiser and seed.")] = 70_000,
    output: Annotated[Path, typer.Option(help="Folder to write.")] = ROOT / "results" / "maml-optimisers",
) -> None:
    """Compare optimisers of MAML's outer loop on sinusoids; all other settings are those of params.yaml.

    The first is the published one: Adam at 0.001, the last phi (Finn et al. 2017, section 5.1). Needs data/sinusoid
    (`dvc repro generate_tasks`).
    """
    refuse_other_folder(output)
    tested = [int(k) for k in test_shots.split(",")]
    tasks = {name: load_task_set(DATASET / f"{name}.safetensors") for name in TESTED_ON}
    for each in tasks.values():
        each.shots(max(tested))  # refuse a dataset that is too small before any work
    rows: list[dict[str, Any]] = []
    for number, optimiser in enumerate(OPTIMISERS):
        folder = FOLDER / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        seeds = write_settings(folder / "params.yaml", optimiser, shots, meta_steps)
        run_stage("meta_train", ["maml", str(DATASET), str(folder / "maml")], folder / "params.yaml")
        method = TrainedMethod.load(folder / "maml" / f"k{shots}.safetensors")
        for name, task_set in tasks.items():
            for k in tested:
                rows += [{**optimiser, "tasks": name, "test_shots": k, **row} for row in errors(method, task_set, k)]
    table = pd.DataFrame(rows)
    results = FOLDER / "results"
    shutil.rmtree(results, ignore_errors=True)
    results.mkdir()
    table.to_csv(results / "table.csv", index=False, float_format="%.6g")
    command = f"python -m tools.maml_optimisers --shots {shots} --test-shots {test_shots} --meta-steps {meta_steps}"
    run = {"command": command, "machine": facts(), "seeds": list(seeds), "optimisers": OPTIMISERS}
    (results / RUN).write_text(json.dumps(run, indent=1) + "\n")
    (results / "README.md").write_text(page(table, shots, meta_steps, len(seeds), command))
    put_in_place(results, output)
    print(f"written: {output / 'README.md'}")


def write_settings(target: Path, optimiser: dict[str, Any], shots: int, meta_steps: int) -> list[int]:
    """Write params.yaml for one optimiser; return the seeds that it trains."""
    yaml = YAML()
    content = yaml.load(ROOT / "params.yaml")
    counts = content["scales"][content["scale"]]["meta_train"]
    content["meta_train"].update({**optimiser, "shots": [shots]})
    counts["meta_steps"] = meta_steps
    yaml.dump(content, target)
    return list(counts["seeds"])


def errors(method: TrainedMethod, tasks: Any, shots: int) -> list[dict[str, Any]]:
    """Return the rows of error against gradient steps of a trained method on ``tasks``, at K = ``shots``."""
    loss = MeanSquaredError(method.architecture.network())
    if method.rule is None:
        raise ValueError(f"{method.method} brings no update rule")
    (values,) = adaptation_scores(loss, method.rule, method.phi, tasks.shots(shots), [tasks.query], max(STEPS))
    numbers = generator(0, f"bootstrap, optimisers, K = {shots}")
    return [dict(row) for row in error_rows(values, DIVERGED_ABOVE, numbers, BOOTSTRAP_SAMPLES)]


def compact(table: pd.DataFrame, tasks: str) -> pd.DataFrame:
    """Return one row an optimiser: its mean errors on ``tasks`` by K at test and gradient step, and their average."""
    here = table[(table["tasks"] == tasks) & table["gradient_step"].isin(STEPS)]
    rows = []
    for values, group in here.groupby(list(OPTIMISERS[0]), sort=False):
        columns = (group[name].tolist() for name in ("test_shots", "gradient_step", "mse_mean"))
        means = {f"K {k}, step {step}": float(mean) for k, step, mean in zip(*columns, strict=True)}
        diverged = group["n_diverged"].max()
        average = sum(means.values()) / len(means)
        told = dict(zip(OPTIMISERS[0], map(str, values), strict=True))
        rows.append({**told, **means, "average": average, "diverged": diverged})
    return pd.DataFrame(rows)


def best(shown: pd.DataFrame) -> dict[str, str]:
    """Return the optimiser with the lowest average, of :func:`compact`."""
    lowest = shown.iloc[int(shown["average"].argmin())]
    return {name: str(lowest[name]) for name in OPTIMISERS[0]}


def page(table: pd.DataFrame, shots: int, meta_steps: int, n_seeds: int, command: str) -> str:
    """Return what was found, as Markdown."""
    sections = "\n\n".join(
        f"## On the {what}\n\n{markdown_table(compact(table, name))}" for name, what in TESTED_ON.items()
    )
    chosen = ", ".join(f"{name} {value}" for name, value in best(compact(table, "validation")).items())
    return f"""# Optimisers of MAML's outer loop

Sinusoids; MAML trained at K = {shots} for {meta_steps:,} meta-steps with Adam, {n_seeds} seeds. The first row is the
optimiser of the paper (Finn et al. 2017: Adam at 0.001), whose released code leaves epsilon at the usual 1e-8 and takes
the last phi. averaged_share: the last share of the meta-steps over which phi is averaged. decay: of the learning rate.

The mean squared error on {int(table["n_tasks"].iloc[0])} tasks after 1, 5 and 10 gradient steps, and the average of
these means, by which an optimiser is chosen on the validation tasks: {chosen}.
diverged: the most pairs of task and seed, at any of these steps, that a mean leaves out for an error above
{DIVERGED_ABOVE:g}. `table.csv` has all steps and 95% intervals.

{sections}

Made again by `{command}`.
"""


if __name__ == "__main__":
    typer.run(main)
