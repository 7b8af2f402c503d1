"""Write the report: tables, figures, metrics and the page, from stored scores only."""

from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer
from torch import Tensor

from metalib.reporting import figures, tables
from metalib.reporting.page import render_html, render_markdown
from metalib.reporting.published import read_table
from metalib.reporting.sinusoid import headline_shots, report_context, seed_table, single_runs_table, unseen_half_errors
from metalib.score_files import ILLUSTRATION_SCHEMA, RATES_SCHEMA, load_scores
from metalib.storage import load_tensors, read_checked_json, write_bytes, write_json, write_text
from metalib.tasks.dataset import ANCHORS_SCHEMA, TaskSet, load_task_set
from stages.ablation_report import ablation_report
from stages.classification_report import classification_report
from stages.costs import print_costs
from stages.locomotion_report import locomotion_report
from stages.running import PARAMS, ParamsOption, Run, stage

TITLE = "Transfer learning using meta-learning: the measured report"
ILLUSTRATED = ("maml", "lstm", "pretrained", "scratch")
FINE_TUNED = ("pretrained", "scratch")
META_LEARNERS = ("maml", "lstm")


def main(
    data: Annotated[Path, typer.Argument(help="Task datasets, e.g. data.")],
    artifacts: Annotated[Path, typer.Argument(help="Trained methods and scores, e.g. artifacts.")],
    published: Annotated[Path, typer.Argument(help="Folder of published figures, e.g. published.")],
    output: Annotated[Path, typer.Argument(help="Folder to write, e.g. reports.")],
    params: ParamsOption = PARAMS,
) -> None:
    """Write tables, figures, metrics.json, report.md and a self-contained index.html (settings: report, evaluate)."""
    with stage("report", params) as run, run.output(output, data, artifacts, published) as folder:
        images = classification_report(run, data / "images", artifacts / "images", published / "few_shot_images.csv")
        bodies = locomotion_report(run, data, artifacts, published / "maml_figure5_locomotion.csv")
        needs = ablation_report(run, artifacts / "sinusoid" / "scores" / "ablation" / "scores.safetensors")
        table, context, pictures, metrics = _sinusoid(run, data / "sinusoid", artifacts / "sinusoid", published)
        sections = {"ablation": needs.markdown, "classification": images.markdown, "locomotion": bodies.markdown}
        more = {"scale": run.params.scale, "locomotion_headline": bodies.headline}
        markdown = render_markdown({**context, **sections, **more})
        write_text(folder / "tables" / "sinusoid.csv", table.to_csv(index=False, float_format="%.6g"))
        write_text(folder / "tables" / "ablation.csv", needs.table.to_csv(index=False, float_format="%.6g"))
        write_text(folder / "tables" / "classification.csv", images.table.to_csv(index=False, float_format="%.6g"))
        write_text(folder / "tables" / "locomotion.csv", bodies.table.to_csv(index=False, float_format="%.6g"))
        pictures = {**pictures, **needs.pictures, **images.pictures, **bodies.pictures}
        for name, picture in pictures.items():
            write_bytes(folder / name, picture)
        write_json(folder / "metrics.json", {**metrics, **needs.metrics, **images.metrics, **bodies.metrics})
        write_text(folder / "report.md", markdown)
        write_text(folder / "index.html", render_html(markdown, TITLE, pictures))
    print_costs()
    print(f"report: {(output / 'index.html').resolve()}")


def _sinusoid(
    run: Run, dataset: Path, artifacts: Path, published: Path
) -> tuple[pd.DataFrame, dict[str, Any], dict[str, bytes], dict[str, object]]:
    """Return the long table, what the page says, the figures by path, and the metrics of sinusoid regression."""
    settings, diverged_above = run.params.report, run.params.evaluate.diverged_above
    anchors = read_checked_json(dataset / "anchors.json", ANCHORS_SCHEMA)
    illustrations = load_task_set(dataset / "illustrations.safetensors")
    n_validation = len(load_task_set(dataset / "validation.safetensors").query.x)
    loaded = {m: load_scores(artifacts / "scores" / m / "scores.safetensors") for m in tables.METHODS}
    scores = [score for entries, _ in loaded.values() for score in entries]
    table = tables.score_table(scores, diverged_above, settings.seed, settings.bootstrap_samples)
    context = report_context(
        table,
        anchors,
        published / "sinusoid.csv",
        rates={m: read_checked_json(artifacts / "scores" / m / "rates.json", RATES_SCHEMA) for m in FINE_TUNED},
        settings={m: trained_with for m, (_, trained_with) in loaded.items()},
        targets=settings.target_errors,
    )
    k, predicted = _predictions(artifacts)
    single_runs = single_runs_table(
        scores, diverged_above, published / "sinusoid.csv", settings.seed, settings.bootstrap_samples
    )
    more = {
        "family": illustrations.family.to_dict(),
        "illustration_k": k,
        "n_illustrations": len(illustrations.query.x),
        "seed_table": seed_table(scores, diverged_above),
        "single_runs": None if single_runs.empty else single_runs,
        "unseen_half": unseen_half_errors(illustrations, predicted),
        "n_validation": n_validation,
        "diverged_above": diverged_above,
        "bootstrap_samples": settings.bootstrap_samples,
    }
    pictures = _pictures(table, anchors, illustrations, k, predicted, _curves(artifacts))
    shown = tables.own_shots(table, context["query_points"])
    trained_steps = {"lstm": loaded["lstm"][1]["inner_steps"]}
    return table, {**context, **more}, pictures, tables.headline_metrics(shown, anchors, trained_steps)


def _predictions(artifacts: Path) -> tuple[int, dict[str, Tensor]]:
    """Return the K of the illustration, and each method's predictions ``[tasks, steps + 1, n]`` at it."""
    stored = {
        m: load_tensors(artifacts / "scores" / m / "illustrations.safetensors", ILLUSTRATION_SCHEMA)[0]
        for m in ILLUSTRATED
    }
    common = set.intersection(*(set(tensors) for tensors in stored.values()))
    k = headline_shots([int(name.removeprefix("k")) for name in common])
    return k, {m: tensors[f"k{k}"] for m, tensors in stored.items()}


def _curves(artifacts: Path) -> dict[str, pd.DataFrame]:
    methods = (*META_LEARNERS, "pretrained", "oracle")
    return {m: read_table(artifacts / m / "curves.tsv", {"step"}) for m in methods}


def _pictures(
    table: pd.DataFrame,
    anchors: dict[str, float],
    illustrations: TaskSet,
    k: int,
    predicted: dict[str, Tensor],
    curves: dict[str, pd.DataFrame],
) -> dict[str, bytes]:
    """Return every figure as PNG by its path in the report."""
    shown = tables.own_shots(table, int(table["query_points"].max()))
    steps = int(table["gradient_step"].max())
    learners = {method: curve for method, curve in curves.items() if method in META_LEARNERS}
    baselines = {method: curve for method, curve in curves.items() if method not in META_LEARNERS}
    drawn = tuple(dict.fromkeys((0, 1, steps)))
    return {
        "figures/regression.png": figures.regression(illustrations.query, illustrations.shots(k), predicted, drawn),
        "figures/error_against_steps.png": figures.error_against_steps(shown, anchors),
        "figures/error_against_examples.png": figures.error_against_examples(shown, drawn[1:]),
        "figures/training_curves.png": figures.training_curves(learners, baselines),
    }


if __name__ == "__main__":
    typer.run(main)
