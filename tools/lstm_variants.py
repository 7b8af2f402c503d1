"""Train the LSTM meta-learner with gradient independence and without it, equally long, and compare errors and cost."""

import json
import shutil
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer
from ruamel.yaml import YAML

from benchmarks.machine import facts
from metalib.config import Decay
from metalib.reporting.page import markdown_table
from metalib.reporting.tables import score_table
from metalib.score_files import load_scores
from tools.results import RUN, put_in_place, refuse_other_folder
from tools.trial import ROOT, logged_seconds, run_stage

FOLDER = ROOT / ".cache" / "lstm-variants"
VARIANTS = {"first order": True, "exact": False}
DIVERGED_ABOVE = 100.0


def main(
    meta_steps: Annotated[int, typer.Option(min=1, help="Meta-steps of each variant.")] = 1500,
    shots: Annotated[int, typer.Option(min=1, help="K.")] = 10,
    learning_rate: Annotated[float, typer.Option(help="Of both variants; params.yaml has what suits exact.")] = 0.003,
    decay: Annotated[Decay, typer.Option(help="Of that learning rate.")] = "late_cosine",
    seed: Annotated[int, typer.Option(min=0, help="Of both variants.")] = 0,
    output: Annotated[Path, typer.Option(help="Folder to write.")] = ROOT / "results" / "lstm-variants",
) -> None:
    """Compare the two variants of the LSTM meta-learner on sinusoids; all other settings are those of params.yaml.

    First order: gradient and loss are constants of the meta-parameters, the paper's "gradient independence" (Ravi and
    Larochelle 2017, section 3.4). Exact: differentiated through. Needs data/sinusoid (`dvc repro generate_tasks`).
    """
    refuse_other_folder(output)
    rows = []
    for name, first_order in VARIANTS.items():
        folder = FOLDER / name.replace(" ", "-")
        folder.mkdir(parents=True, exist_ok=True)
        settings = write_settings(folder / "params.yaml", first_order, meta_steps, shots, learning_rate, decay, seed)
        trained = str(folder / "lstm")
        run_stage("meta_train", ["lstm", "data/sinusoid", trained], folder / "params.yaml")
        seconds = logged_seconds("meta_train@sinusoid-lstm")
        run_stage("evaluate", ["data/sinusoid", trained, str(folder / "scores")], folder / "params.yaml")
        scores, _ = load_scores(folder / "scores" / "scores.safetensors")
        table = score_table(scores, DIVERGED_ABOVE, seed=0, bootstrap_samples=2000)
        rows.append({"variant": name, "meta_steps": meta_steps, **row(table, settings["inner_steps"]), "s": seconds})
    results = FOLDER / "results"
    shutil.rmtree(results, ignore_errors=True)
    results.mkdir()
    table = pd.DataFrame(rows)
    table.to_csv(results / "table.csv", index=False, float_format="%.6g")
    command = f"python -m tools.lstm_variants --meta-steps {meta_steps} --shots {shots}"
    command += f" --learning-rate {learning_rate:g} --decay {decay} --seed {seed}"
    (results / RUN).write_text(json.dumps({"command": command, "machine": facts(), **settings}, indent=1) + "\n")
    (results / "README.md").write_text(page(table, settings, shots, command))
    put_in_place(results, output)
    print(f"written: {output / 'README.md'}")


def write_settings(
    target: Path, first_order: bool, meta_steps: int, shots: int, learning_rate: float, decay: Decay, seed: int
) -> dict[str, Any]:
    """Write params.yaml for one variant; return the settings of the LSTM meta-learner in it."""
    yaml = YAML()
    content = yaml.load(ROOT / "params.yaml")
    section, counts = content["meta_train_lstm"], content["scales"][content["scale"]]["meta_train_lstm"]
    section["first_order"], section["shots"], content["evaluate"]["shots"] = first_order, [shots], [shots]
    content["ablation"]["shots"] = shots
    section["learning_rate"], section["decay"] = learning_rate, decay
    counts["meta_steps"], counts["seeds"] = meta_steps, [seed]
    yaml.dump(content, target)
    told = ("inner_steps", "meta_batch", "learning_rate", "decay")
    return {**{name: section[name] for name in told}, "seed": seed}


def row(table: pd.DataFrame, inner_steps: int) -> dict[str, float]:
    """Return the errors after the updates trained for, from the long table of one variant."""
    most = table["query_points"].max()
    last = table[(table["gradient_step"] == inner_steps) & (table["query_points"] == most)].iloc[0]
    return {name: last[name] for name in ("query_points", "mse_mean", "mse_median", "ci95_low", "ci95_high")}


def page(table: pd.DataFrame, settings: dict[str, Any], shots: int, command: str) -> str:
    """Return what was found, as Markdown."""
    machine = facts()
    return f"""# The LSTM meta-learner with and without gradient independence

Sinusoids, K = {shots}, {settings["inner_steps"]} updates, {settings["meta_batch"]} tasks a meta-step, learning rate
{settings["learning_rate"]:g} (decay: {settings["decay"]}), seed {settings["seed"]}. The mean
squared error on the query points of the frozen test tasks after these updates, with its 95% bootstrap interval over
tasks; s: seconds of training, wall clock, on {machine["cores"]} cores of {machine["cpu"]}, which other work may have
shared.

{markdown_table(table)}

Made again by `{command}`.
"""


if __name__ == "__main__":
    typer.run(main)
