"""Write the figures that README and docs/locomotion.md state, from the results: python -m tools.headline."""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer
from ruamel.yaml import YAML

from metalib.reporting.locomotion import TASK_NAMES
from metalib.reporting.published import read_table
from metalib.reporting.style import METHOD_STYLES
from metalib.storage import StorageError, write_text

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- written by python -m tools.headline -->\n", "<!-- end of what it writes -->"
HEAD = """\
| task: what is measured | MAML | LSTM meta-learner | pretrained | oracle | beside it |
|---|---:|---:|---:|---:|---|
"""
TASKS = ("cheetah_dir", "cheetah_vel", "ant_dir", "ant_vel")
OPTIMISERS = "results/maml-optimisers"
ANT_VEL = "results/paper/ant_vel-1000-meta-steps"
ANT_VEL_SHORTER = "results/paper/ant_vel-750-meta-steps"
ANT_VEL_SECOND_ORDER = f"{ANT_VEL_SHORTER}-second-order"
ANT_DIR = "results/paper/ant_dir-400-meta-steps"
ANT_DIR_SECOND_ORDER = f"{ANT_DIR}-second-order"
LONGER = {
    "cheetah_dir": "results/paper/cheetah_vel-cheetah_dir",
    "cheetah_vel": "results/paper/cheetah_vel-cheetah_dir",
    "ant_dir": ANT_DIR,
    "ant_vel": ANT_VEL,
}
"""Where the longer runs of locomotion lie, by task."""
LONGER_HEAD = """\
| trained for longer: return after one gradient step on 20 rollouts | MAML | pretrained | oracle | published MAML | \
published oracle | environment steps here |
|---|---:|---:|---:|---:|---:|---|
"""
ANT_RUNS: dict[str, dict[str, tuple[str, tuple[tuple[str, int], ...]]]] = {
    "ant_vel": {
        ANT_VEL_SECOND_ORDER: (", 750 meta-steps, second order from the start", (("maml", 20),)),
        ANT_VEL_SHORTER: (", 750 meta-steps", (("maml", 20), ("pretrained", 20), ("oracle", 20))),
        ANT_VEL: (", 1,000 meta-steps", (("maml", 20), ("maml", 40), ("pretrained", 20), ("oracle", 20))),
    },
    "ant_dir": {
        ANT_DIR_SECOND_ORDER: (", 400 meta-steps, second order from the start", (("maml", 20), ("maml", 40))),
        ANT_DIR: (", 400 meta-steps", (("maml", 20), ("maml", 40), ("pretrained", 20), ("oracle", 20))),
    },
}
"""By task and place of a run what its rows say after the method, and which policies are shown, by method and K."""
ANT_PUBLISHED = {"ant_vel": (("maml", 20), ("oracle", 20)), "ant_dir": (("maml", 20), ("maml", 40), ("oracle", 40))}
"""Which published policies stand beside them, by method and K."""
ANT_HEAD = """\
| {name}: return [95% interval over goals] | K | before | after one gradient step | after three | \
environment steps |
|---|---:|---|---|---|---:|
"""
Metrics = Mapping[str, Any]


def main(root: Annotated[Path, typer.Option(help="The project.", show_default="this one")] = ROOT) -> None:
    """Rewrite the parts of README.md and docs/locomotion.md between two comments; a test holds the pages to them."""
    try:
        pages = {name: replaced((root / name).read_text(), block(root)) for name, block in PAGES.items()}
        for name, page in pages.items():
            write_text(root / name, page)
    except KeyError as error:
        typer.echo(f"the results lack {error}, which a page states; run `dvc repro` at default scale first", err=True)
        raise typer.Exit(1) from error
    except (OSError, StorageError, ValueError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error


def replaced(page: str, block: str) -> str:
    """Return ``page`` with ``block`` between the two comments.

    Raises:
        ValueError: it does not hold both, in their order.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"a page must hold the lines {BEGIN.strip()} and {END}")
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
    longer = {task: read_table(root / place / "tables" / "locomotion.csv", columns) for task, place in LONGER.items()}
    params = _yaml(root / "params.yaml")
    loops = [inner_loop(task, params, "default") for task in LONGER]
    longer_loops = [inner_loop(task, _yaml(root / place / "params.yaml"), "paper") for task, place in LONGER.items()]
    counted = {"mse_mean", "query_points", "gradient_step", "n_tasks", "n_seeds", "n_diverged"}
    errors = read_table(root / "reports" / "tables" / "sinusoid.csv", counted)
    others = read_table(root / "published" / "sinusoid.csv", {"mse", "gradient_steps"})
    compared = {"learning_rate", "epsilon", "averaged_share", "tasks", "test_shots", "gradient_step", "mse_mean"}
    optimisers = read_table(root / OPTIMISERS / "table.csv", compared)
    parts = (
        _table(HEAD, rows),
        *(["".join(loops).strip()] if any(loops) else []),
        _table(LONGER_HEAD, longer_rows(longer, published)),
        "Environment steps are those of MAML / pretrained / oracle: the baselines took as many meta-steps, without "
        f"rollouts after an inner step.{''.join(longer_loops)}",
        published_sentence(errors, others, optimisers, params["evaluate"]["diverged_above"]),
        needs(metrics, params["scales"]["default"]),
        speed_sentence(speed),
    )
    return "\n\n".join(parts) + "\n"


def _yaml(path: Path) -> Any:
    return YAML(typ="safe").load(path)


def _table(head: str, rows: Iterable[list[str]]) -> str:
    return head + "\n".join(f"| {' | '.join(row)} |" for row in rows)


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
        maml, pretrained, oracle = (f"{value:z.0f}" for value in (*returns, found["oracle"]["return_step0"]))
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


def longer_rows(longer: Mapping[str, pd.DataFrame], published: pd.DataFrame) -> list[list[str]]:
    """Return the rows on longer runs, K = 20: MAML and pretrained after one step, the oracle before any."""
    rows = []
    for task, table in longer.items():
        at_k = table[(table.task == task) & (table.rollouts == 20)].set_index(["method", "gradient_step"])
        judged = [("maml", 1), ("pretrained", 1), ("oracle", 0)]
        returns = [f"{at_k.return_mean[policy]:z.0f}" for policy in judged]
        steps = " / ".join(f"{at_k.env_steps[policy] / 1e6:.0f} M" for policy in judged)
        beside = _published(task, 20, published).removeprefix("published MAML ")
        theirs = published[(published.task == task) & (published.method == "oracle")].return_mean
        oracle = f"{theirs.iloc[0]:z.0f}" if len(theirs) else "-"
        name = f"[{TASK_NAMES[task].capitalize()}]({LONGER[task]}/README.md)"
        rows.append([name, *returns, beside, oracle, steps])
    return rows


def inner_loop(task: str, params: Metrics, scale: str) -> str:
    """Return what pretraining changes in MAML's inner loop on a task, as a sentence; empty without pretraining."""
    # Settings that belong to a scale now stand in the shared section of some older runs, or are missing.
    loop = {**params["meta_train_policy"], **params["scales"][scale]["meta_train_policy"]}
    if "pretraining" not in loop or not (share := loop["pretraining"][task]):
        return ""
    steps = loop["meta_steps"][task]
    order, rate = "first" if loop["pretrained_first_order"] else "second", loop["pretrained_inner_rate"][task]
    return (
        f" On {_in_prose(task)} MAML takes no inner step in the first {round(share * steps):,} of "
        f"{steps:,} meta-steps, and from there on goes to {order} order at a rate of {rate:g}."
    )


def published_sentence(errors: pd.DataFrame, published: pd.DataFrame, optimisers: pd.DataFrame, limit: float) -> str:
    """Return MAML's errors beside the published table, trained at K = 10 and tested at K = 5.

    Those above ``limit`` have diverged: the table's means leave them out. ``optimisers`` compares those of the outer
    loop, the published among them.
    """
    most = errors[errors.query_points == errors.query_points.max()]
    theirs = _between_shots(published).set_index("gradient_steps").mse
    ours = _between_shots(most).set_index("gradient_step").loc[theirs.index]
    by_step = optimisers[_as_published(optimisers)].set_index("gradient_step").mse_mean
    return (
        f"Trained at K = 10 and tested at K = 5, MAML's error on sine waves is {_slashed(ours.mse_mean, '.2f')} after "
        f"{_slashed(theirs.index)} gradient steps (published: {_slashed(theirs, '.2f')}). {_left_out(ours, limit)} "
        f"With the published optimiser of the outer loop it is {_slashed(by_step.loc[theirs.index], '.2f')} here, for "
        "tasks overshoot when pushed further than they were trained for "
        f"([optimisers compared]({OPTIMISERS}/README.md))."
    )


def _as_published(optimisers: pd.DataFrame) -> pd.Series:
    """Return which rows are of Adam at 0.001 with the usual epsilon and the last phi, at K = 5 on the test tasks."""
    adam = (optimisers.learning_rate == 0.001) & (optimisers.epsilon == 1e-8) & (optimisers.averaged_share == 0)
    return adam & (optimisers.tasks == "test") & (optimisers.test_shots == 5)


def _left_out(errors: pd.DataFrame, limit: float) -> str:
    """Return how many errors the means of these rows leave out as diverged, and the least they would be with them."""
    pairs = errors.n_tasks * errors.n_seeds
    if not errors.n_diverged.any():
        return f"No error is above {limit:g}, where a task would count as diverged and be left out."
    least = (errors.mse_mean * (pairs - errors.n_diverged) + limit * errors.n_diverged) / pairs
    return (
        f"Of {int(pairs.iloc[0]):,} pairs of task and seed, {_slashed(errors.n_diverged)} are left out since their "
        f"error is above {limit:g}; counted as {limit:g} each they would make it {_slashed(least, '.2f')}."
    )


def _slashed(values: Iterable[float], digits: str = "") -> str:
    return " / ".join(format(value, digits) for value in values)


def _between_shots(table: pd.DataFrame) -> pd.DataFrame:
    return table[(table.method == "maml") & (table.train_shots == 10) & (table.test_shots == 5)]


def needs(metrics: Metrics, counts: Metrics) -> str:
    """Return what meta-learning needs, in a sentence."""

    def errors(experiment: str, conditions: tuple[str, ...]) -> str:
        *first, last = (f"{metrics['ablation'][experiment][condition]:.2f}" for condition in conditions)
        return f"{', '.join(first)} and {last}"

    few, many = (f"{counts[section]['meta_steps']:,}" for section in ("ablation", "meta_train"))
    return (
        f"What meta-learning needs, by MAML at K = 10 after ten steps, with {few} meta-steps instead of the table's "
        f"{many}: trained on 1, 16, 256 and all sine waves it errs "
        f"by {errors('training_tasks', ('1', '16', '256', 'all'))} on new ones; with one, two, three and four hidden "
        f"layers by {errors('layers', ('1', '2', '3', '4'))}.{_unlearned(metrics)}"
    )


def _unlearned(metrics: Metrics) -> str:
    """Return which depths err more than the pretrained network before it adapts, so have learned nothing."""
    limit = metrics["sinusoid"]["pretrained_k10"]["mse_step0"]
    stuck = [layers for layers, error in metrics["ablation"]["layers"].items() if error > limit]
    if not stuck:
        return ""
    return (
        f" With {' and '.join(stuck)} layers training has not left its start: the optimiser suits two layers "
        "([the report](reports/report.md))."
    )


def speed_sentence(results: Metrics) -> str:
    """Return what a meta-step costs, in a sentence."""
    contenders = results["meta_step"]["one_thread"]["contenders"]
    ours = contenders["metalib_fused"]
    compiled, jax, higher = (contenders[name]["ms_median"] for name in ("metalib_compiled", "jax_scan", "higher_loop"))
    return (
        "Meta-training is fast: the paper's meta-step (25 tasks, 10 examples, second order) takes "
        f"{ours['ms_median']:.3f} ms on one core in the kernel for fully connected networks, "
        f"{ours['times_floor_median']:.1f} times what its arithmetic alone would take; {compiled:.3f} ms in the "
        f"compiled program of any network; {jax:.3f} ms in JAX and {higher:.1f} ms with `higher` "
        "([what a meta-step costs](docs/benchmarks.md))."
    )


def ants(root: Path) -> str:
    """Return the tables of what training in two orders made of the ant's tasks, beside the published returns."""
    return "\n\n".join(_ant_table(root, task, runs) for task, runs in ANT_RUNS.items()) + "\n"


def _ant_table(root: Path, task: str, runs: Mapping[str, tuple[str, tuple[tuple[str, int], ...]]]) -> str:
    columns = {"task", "method", "rollouts", "gradient_step", "return_mean", "env_steps"}
    ends = {"ci95_low", "ci95_high"}
    rows = []
    for place, (label, judged) in runs.items():
        measured = read_table(root / place / "tables" / "locomotion.csv", columns | ends)
        for method, k in judged:
            rows.append(
                [
                    f"[{METHOD_STYLES[method].label}{label}](../{place}/README.md)",
                    *_ant_row(measured, task, method, k, _with_interval),
                ]
            )
    published = read_table(root / "published" / "maml_figure5_locomotion.csv", columns | {"ci95_halfwidth"})
    for method, k in ANT_PUBLISHED[task]:
        theirs = _ant_row(published, task, method, k, _with_halfwidth)
        rows.append([f"published: {METHOD_STYLES[method].label}", *theirs])
    return _table(ANT_HEAD.format(name=_in_prose(task)), rows)


def _ant_row(table: pd.DataFrame, task: str, method: str, k: int, shown: Callable[[Any], str]) -> list[str]:
    """Return K, the returns before and after one and three steps where there are such, and the environment steps."""
    rows = table[(table.task == task) & (table.method == method) & (table.rollouts == k)]
    by_step = {int(row["gradient_step"]): row for row in rows.to_dict("records")}
    env_steps = by_step[0]["env_steps"]
    steps = "not given" if math.isnan(env_steps) else f"{env_steps / 1e6:.0f} M"
    return [str(k), *(shown(by_step[step]) if step in by_step else "" for step in (0, 1, 3)), steps]


def _in_prose(task: str) -> str:
    return TASK_NAMES[task].replace(", ", " ")


def _with_interval(row: Metrics) -> str:
    return f"{row['return_mean']:.0f} [{row['ci95_low']:.0f}, {row['ci95_high']:.0f}]"


def _with_halfwidth(row: Metrics) -> str:
    return f"{row['return_mean']:.0f} ± {row['ci95_halfwidth']:.0f}"


PAGES = {"README.md": headline, "docs/locomotion.md": ants}
"""What is written between the two comments of each page."""

if __name__ == "__main__":
    typer.run(main)
