"""Write the figures that README states, from the results: python -m tools.headline."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer
from ruamel.yaml import YAML

from metalib.reporting.locomotion import TASK_NAMES
from metalib.reporting.published import read_table
from metalib.storage import write_text

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- written by python -m tools.headline -->\n", "<!-- end of what it writes -->"
HEAD = """\
| task: what is measured | MAML | LSTM meta-learner | pretrained | oracle | beside it |
|---|---:|---:|---:|---:|---|
"""
TASKS = ("cheetah_dir", "cheetah_vel", "ant_dir", "ant_vel")
LONGER = "results/paper/ant_vel-750-meta-steps"
"""A longer run, which README names beside its row of the default scale."""
Metrics = Mapping[str, Any]


def main(root: Annotated[Path, typer.Option(help="The project.", show_default="this one")] = ROOT) -> None:
    """Rewrite the part of README.md between its two comments; a test holds README to it."""
    readme = root / "README.md"
    try:
        block = headline(root)
    except KeyError as error:
        typer.echo(f"the results lack {error}, which README states; run `dvc repro` at default scale first", err=True)
        raise typer.Exit(1) from error
    write_text(readme, replaced(readme.read_text(), block))


def replaced(page: str, block: str) -> str:
    """Return ``page`` with ``block`` between the two comments.

    Raises:
        ValueError: it does not hold both, in their order.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"README.md must hold the lines {BEGIN.strip()} and {END}")
    return before + begin + block + end + after


def headline(root: Path) -> str:
    """Return the block: a table of what learners reach, and sentences on what it does not hold."""
    metrics = json.loads((root / "reports" / "metrics.json").read_text())
    columns = {"task", "method", "rollouts", "gradient_step", "return_mean", "env_steps"}
    published = read_table(root / "published" / "maml_figure5_locomotion.csv", columns)
    measured = read_table(root / "reports" / "tables" / "locomotion.csv", columns)
    speed = json.loads((root / "benchmarks" / "results" / "meta_step.json").read_text())
    rows = [
        *regression_rows(metrics["sinusoid"]),
        *classification_rows(metrics["classification"]),
        *locomotion_rows(metrics["locomotion"], measured, published),
    ]
    table = HEAD + "".join(f"| {' | '.join(row)} |\n" for row in rows)
    longer = read_table(root / LONGER / "tables" / "locomotion.csv", columns)
    steps, _ = json.loads((root / LONGER / "run.json").read_text())["shortened"]
    loop = inner_loop(YAML(typ="safe").load(root / LONGER / "params.yaml"), steps)
    errors = read_table(root / "reports" / "tables" / "sinusoid.csv", {"mse_mean", "query_points", "gradient_step"})
    others = read_table(root / "published" / "sinusoid.csv", {"mse", "gradient_steps"})
    sentences = (
        f"{longer_sentence(longer, published, steps, loop)} {published_sentence(errors, others)}",
        needs(metrics["ablation"]),
        speed_sentence(speed),
    )
    return "\n\n".join((table.rstrip(), *sentences)) + "\n"


def regression_rows(metrics: Metrics) -> list[list[str]]:
    """Return the rows on sine waves, K = 10."""

    def error(method: str, step: int) -> str:
        return f"{metrics[f'{method}_k10'][f'mse_step{step}']:.2f}"

    oracle = f"{metrics['oracle_k10']['mse_step0']:.3f}"
    what = "Sine wave from ten points: mean squared error after"
    scratch = [f"a network from scratch {error('scratch', step)}" for step in (1, 10)]
    return [
        [f"{what} one gradient step", error("maml", 1), error("lstm", 1), error("pretrained", 1), oracle, scratch[0]],
        [
            f"{what} ten (LSTM: its five updates)",
            *(error("maml", 10), error("lstm", 5), error("pretrained", 10), oracle, scratch[1]),
        ],
    ]


def classification_rows(metrics: Metrics) -> list[list[str]]:
    """Return the rows on letters, 5-way."""
    what = "Five letters of an unseen alphabet, {} each: accuracy"
    rows = []
    for key, images in (("5way_1shot", "one image"), ("5way_5shot", "five images")):
        share = {method: f"{100 * value:.1f}%" for method, value in metrics[key].items()}
        beside = f"nearest neighbours on pixels {share['nearest_neighbour']}"
        rows.append([what.format(images), share["maml"], share["lstm"], share["pretrained"], "", beside])
    return rows


def locomotion_rows(metrics: Metrics, measured: pd.DataFrame, published: pd.DataFrame) -> list[list[str]]:
    """Return the rows on half-cheetahs and ants, after one gradient step on the fewest rollouts K that were run."""
    rows = []
    for task in TASKS:
        found = metrics[task]
        returns = [found[method]["return_step1"] for method in ("maml", "pretrained")]
        maml, pretrained, oracle = (f"{value:.0f}" for value in (*returns, found["oracle"]["return_step0"]))
        ours = measured[(measured.task == task) & (measured.method == "maml")]
        k = int(ours.rollouts.min())
        what = f"{TASK_NAMES[task].capitalize()}: return after one gradient step on {k} rollouts"
        beside = f"{_published(task, k, published)}; here {ours.env_steps.iloc[0] / 1e6:.1f} M environment steps"
        rows.append([what, maml, "", pretrained, oracle, beside])
    return rows


def _published(task: str, k: int, table: pd.DataFrame) -> str:
    """Return MAML's published return after one step at the same K, and after how many environment steps, if given."""
    of_task = table[(table.task == task) & (table.method == "maml") & (table.gradient_step == 1)]
    at_k = of_task[of_task.rollouts == k]
    if at_k.empty:
        return f"nothing published at K = {k}"
    value, env_steps = at_k[["return_mean", "env_steps"]].iloc[0]
    steps = "steps not given" if math.isnan(env_steps) else f"{env_steps / 1e6:.0f} M"
    return f"published MAML {value:.0f} ({steps})"


def inner_loop(params: Metrics, meta_steps: int) -> str:
    """Return in brackets how MAML's inner loop on ant velocity is not the paper's; empty where it is."""
    loop = params["scales"]["paper"]["meta_train_policy"]
    if "pretraining" not in loop or not (share := loop["pretraining"]["ant_vel"]):  # older runs had no such setting
        return ""
    order = "first" if params["meta_train_policy"]["pretrained_first_order"] else "second"
    return f" ({round(share * meta_steps)} of them without an inner step, the others to {order} order)"


def longer_sentence(longer: pd.DataFrame, published: pd.DataFrame, meta_steps: int, loop: str) -> str:
    """Return what longer training makes of ant velocity, K = 20, after one step."""
    at_k = longer[longer.rollouts == 20].set_index(["method", "gradient_step"])
    judged = [("maml", 1), ("pretrained", 1), ("oracle", 0)]
    maml, pretrained, oracle = (f"{at_k.return_mean[policy]:.0f}" for policy in judged)
    theirs, baselines, _ = (f"{at_k.env_steps[policy] / 1e6:.0f} M" for policy in judged)
    return (
        f"Trained for longer, {meta_steps} meta-steps{loop} or {theirs} environment steps, MAML returns {maml} on ant "
        f"velocity after one gradient step; pretrained {pretrained} and the oracle {oracle}, after as many meta-steps, "
        f"which are {baselines}; {_published('ant_vel', 20, published)} ([the run]({LONGER}/README.md))."
    )


def published_sentence(errors: pd.DataFrame, published: pd.DataFrame) -> str:
    """Return MAML's errors beside the published table, trained at K = 10 and tested at K = 5."""
    most = errors[errors.query_points == errors.query_points.max()]
    theirs = _between_shots(published).set_index("gradient_steps").mse
    ours = _between_shots(most).set_index("gradient_step").mse_mean[theirs.index]
    steps = " / ".join(str(step) for step in theirs.index)
    here, there = (" / ".join(f"{error:.2f}" for error in column) for column in (ours, theirs))
    return (
        f"Trained at K = 10 and tested at K = 5, MAML's error on sine waves is {here} after {steps} gradient steps "
        f"(published: {there}): a few tasks overshoot when pushed further than they were trained for."
    )


def _between_shots(table: pd.DataFrame) -> pd.DataFrame:
    return table[(table.method == "maml") & (table.train_shots == 10) & (table.test_shots == 5)]


def needs(metrics: Metrics) -> str:
    """Return what meta-learning needs, in a sentence."""

    def errors(experiment: str, conditions: tuple[str, ...]) -> str:
        *first, last = (f"{metrics[experiment][condition]:.2f}" for condition in conditions)
        return f"{', '.join(first)} and {last}"

    return (
        "What meta-learning needs, by MAML at K = 10 after ten steps: trained on 1, 16, 256 and all sine waves it errs "
        f"by {errors('training_tasks', ('1', '16', '256', 'all'))} on new ones; with one, two, three and four hidden "
        f"layers by {errors('layers', ('1', '2', '3', '4'))}."
    )


def speed_sentence(results: Metrics) -> str:
    """Return what a meta-step costs, in a sentence."""
    contenders = results["meta_step"]["one_thread"]["contenders"]
    ours = contenders["metalib_fused"]
    jax, higher = (contenders[name]["times_metalib_fused_median"] for name in ("jax_scan", "higher_loop"))
    return (
        "Meta-training is fast: the paper's meta-step (25 tasks, 10 examples, second order) takes "
        f"{ours['ms_median']:.3f} ms on one core, {ours['times_floor_median']:.1f} times what its arithmetic alone "
        f"would take, where JAX takes {jax:.1f} times as long, `higher` {higher:.0f} times "
        "([what a meta-step costs](docs/benchmarks.md))."
    )


if __name__ == "__main__":
    typer.run(main)
