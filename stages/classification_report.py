"""The part of the report stage that is on few-shot classification."""

from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from metalib.losses import Batch, Episode
from metalib.reporting import classification, image_figures
from metalib.reporting.page import render_markdown
from metalib.reporting.style import METHOD_STYLES
from metalib.reporting.wording import counted
from metalib.score_files import (
    GATES_SCHEMA,
    IMAGE_ILLUSTRATION_SCHEMA,
    RATES_SCHEMA,
    SPLIT_ACCURACIES_SCHEMA,
    Accuracies,
    load_accuracies,
)
from metalib.storage import load_tensors, read_checked_json
from metalib.tasks.image_tasks import Condition, load_classes, load_frozen_episodes, load_image_tasks
from stages.running import Run

FINE_TUNED = ("pretrained", "scratch")
DRAWN_QUERIES = 3
CONV4_ONLY = {"filters", "downsample"}
"""Settings of image networks that one of kind mlp does not have."""


class ClassificationReport(NamedTuple):
    """The long ``table``, the section as ``markdown``, ``pictures`` by path, and ``metrics``."""

    table: pd.DataFrame
    markdown: str
    pictures: dict[str, bytes]
    metrics: dict[str, Any]


def classification_report(run: Run, dataset: Path, artifacts: Path, published: Path) -> ClassificationReport:
    """Return the report on few-shot classification (settings: report)."""
    settings, tasks = run.params.report, load_image_tasks(dataset)
    loaded = {m: load_accuracies(artifacts / "scores" / m / "scores.safetensors") for m in classification.METHODS}
    accuracies = [entry for entries, _, _ in loaded.values() for entry in entries]
    table = classification.accuracy_table(accuracies, tasks.dataset, settings.seed, settings.bootstrap_samples)
    steps = classification.own_steps(accuracies)
    trained_with = {m: _plain(values) for m, (_, _, values) in loaded.items() if values}
    condition = tasks.conditions[0]
    curves = {way: f"accuracy_against_steps_{way}way.png" for way in sorted({c.way for c in tasks.conditions})}
    pictures = {f"figures/{name}": image_figures.accuracy_against_steps(table, way) for way, name in curves.items()}
    pictures["figures/episode.png"] = _episode(dataset, artifacts, accuracies, condition)
    beside = {
        m: load_tensors(artifacts / "scores" / m / "splits.safetensors", SPLIT_ACCURACIES_SCHEMA)[0]
        for m in classification.METHODS
    }
    pictures["figures/gates.png"], gate_episodes = _gates(artifacts)
    published_table = classification.published_rows(published, tasks.dataset)
    classes = {split: len(load_classes(dataset, split).names) for split in ("train", "validation", "test")}
    context = {
        "dataset": tasks.dataset,
        "way_names": " or ".join(str(way) for way in curves),
        "queries": tasks.queries,
        "n_faces": load_classes(dataset, "test").images.shape[1],
        "n_train": classes["train"],
        "n_validation_classes": classes["validation"],
        "n_test_classes": classes["test"],
        "rotated": run.params.generate_image_tasks.rotated_classes,
        "headline": classification.headline(table, steps),
        "labels": {method: style.label for method, style in METHOD_STYLES.items()},
        "accuracy_figures": [(name, way) for way, name in curves.items()],
        "n_episodes": int(table["n_episodes"].max()),
        "seeds": counted(table["n_seeds"], "training seed"),
        "summary": classification.summary_table(table, steps),
        "splits": classification.splits_table(table, steps, beside, settings.seed, settings.bootstrap_samples),
        "episode_figure": "episode.png",
        "episode_name": f"{condition.way}-way {condition.shot}-shot",
        "published_table": None if published_table.empty else published_table,
        "n_validation": len(load_frozen_episodes(dataset, "validation", condition).query.y),
        "rates": classification.rates_table(
            {m: read_checked_json(artifacts / "scores" / m / "rates.json", RATES_SCHEMA) for m in FINE_TUNED}
        ),
        "gates_figure": "gates.png",
        "gate_tasks": f"the first {gate_episodes} test episodes",
        "settings": {METHOD_STYLES[m].label: values for m, values in trained_with.items()},
        "setting_names": list(dict.fromkeys(name for values in trained_with.values() for name in values)),
    }
    metrics = {"classification": classification.headline_metrics(table, steps)}
    return ClassificationReport(table, render_markdown(context, "classification.md.j2"), pictures, metrics)


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that a method's training used, as they fit a table cell."""
    unused = {"versions"} | ({"hidden"} if values["kind"] == "conv4" else CONV4_ONLY)
    return {name: _cell(value) for name, value in values.items() if name not in unused}


def _cell(value: Any) -> Any:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {part}" for key, part in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else value


def _episode(dataset: Path, artifacts: Path, accuracies: list[Accuracies], condition: Condition) -> bytes:
    """Draw the first test episode of a condition, with every method's predictions."""
    steps = classification.own_steps(accuracies)
    predicted = {}
    for method in classification.METHODS:
        path = artifacts / "scores" / method / "illustrations.safetensors"
        classes = load_tensors(path, IMAGE_ILLUSTRATION_SCHEMA)[0][condition.name][0]
        predicted[method] = (classes, steps[method, *condition])
    first = [Batch(batch.x[0], batch.y[0]) for batch in load_frozen_episodes(dataset, "test", condition)]
    return image_figures.episode(Episode(*first), predicted, DRAWN_QUERIES)


def _gates(artifacts: Path) -> tuple[bytes, int]:
    """Draw the gates of the LSTM meta-learner in every condition; return the figure, and of how many test episodes."""
    tensors, header = load_tensors(artifacts / "scores" / "lstm" / "gates.safetensors", GATES_SCHEMA)
    names = dict.fromkeys(name.rsplit("-", 1)[0] for name in tensors)
    by_name = {name: {gate: tensors[f"{name}-{gate}"] for gate in ("forget", "input")} for name in names}
    return image_figures.gates(by_name, header["quantiles"]), header["episodes"]
