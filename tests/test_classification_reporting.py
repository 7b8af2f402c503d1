"""Tables and figures of few-shot classification from hand-made accuracies."""

import math

import pandas as pd
import pytest
import torch

from metalib.losses import Batch, Episode
from metalib.reporting import classification, image_figures
from metalib.score_files import Accuracies, load_accuracies, save_accuracies
from metalib.storage import StorageError


def accuracies(method, by_step, train_steps=None, rate=None, shot=1, n_seeds=2):
    values = torch.tensor(by_step, dtype=torch.float32).expand(n_seeds, 4, -1).contiguous()
    return Accuracies(method, 5, shot, train_steps, rate, values)


ENTRIES = [
    accuracies("maml", [0.2, 0.8, 0.9, 0.95], 1, 0.4),
    accuracies("lstm", [0.2, 0.5, 0.85, 0.1], 2),
    accuracies("nearest_neighbour", [0.4], n_seeds=1),
    accuracies("maml", [0.2, 0.9, 0.9, 0.9], 1, 0.4, shot=5),
]


@pytest.fixture(name="table")
def _table():
    return classification.accuracy_table(ENTRIES, "glyphs", 0, 100)


def test_the_long_table(table):
    assert len(table) == 4 + 4 + 1 + 4
    row = table[(table.method == "lstm") & (table.gradient_step == 2)].iloc[0]
    assert row[["accuracy_mean", "ci95_low", "ci95_high"]].to_numpy(dtype=float) == pytest.approx(0.85)
    assert row[["way", "shot", "n_episodes", "n_seeds"]].tolist() == [5, 1, 4, 2]
    assert math.isnan(table[table.method == "nearest_neighbour"]["seed_std"].item())
    assert set(table["dataset"]) == {"glyphs"}


def test_every_method_is_judged_after_its_own_steps(table):
    steps = classification.own_steps(ENTRIES)
    assert steps == {("maml", 5, 1): 3, ("lstm", 5, 1): 2, ("nearest_neighbour", 5, 1): 0, ("maml", 5, 5): 3}
    metrics = classification.headline_metrics(table, steps)
    assert metrics == {
        "5way_1shot": {"maml": 0.95, "lstm": 0.85, "nearest_neighbour": 0.4},
        "5way_5shot": {"maml": 0.9},
    }
    summary = classification.summary_table(table, steps)
    lstm = summary[(summary["method"] == "LSTM meta-learner")].iloc[0]
    assert lstm[["before", "after 1 step", "accuracy, %", "steps"]].tolist() == [
        "20.0 [20.0, 20.0]",
        "50.0 [50.0, 50.0]",
        "85.0 [85.0, 85.0]",
        2,
    ]


def test_accuracies_on_classes_known_from_training_stand_beside_those_of_the_test(table):
    conditions = [
        ("maml", "5way-1shot"),
        ("maml", "5way-5shot"),
        ("lstm", "5way-1shot"),
        ("nearest_neighbour", "5way-1shot"),
    ]
    beside: dict[str, dict[str, torch.Tensor]] = {}
    for method, name in conditions:
        made = {f"{name}-train": torch.full((2, 3), 0.99), f"{name}-validation": torch.tensor([[0.8, 1.0], [0.8, 1.0]])}
        beside.setdefault(method, {}).update(made)
    found = classification.splits_table(table, classification.own_steps(ENTRIES), beside, 0, 100)
    assert list(found) == ["task", "method", "train, %", "validation, %", "test, %"]
    lstm = found[found["method"] == "LSTM meta-learner"].iloc[0]
    assert lstm[["train, %", "test, %"]].tolist() == ["99.0 [99.0, 99.0]", "85.0 [85.0, 85.0]"]
    assert lstm["validation, %"].startswith("90.0 [80.0, ")


def test_published_rows_are_those_of_the_dataset(tmp_path):
    path = tmp_path / "published.csv"
    columns = {"dataset": ["omniglot", "miniimagenet"], "method": "maml", "way": 5, "shot": 1}
    pd.DataFrame({**columns, "accuracy_percent": 98.7, "ci95_halfwidth": 0.4, "source": "x"}).to_csv(path, index=False)
    assert len(classification.published_rows(path, "omniglot")) == 1
    assert classification.published_rows(path, "glyphs").empty
    path.write_text("dataset,method\n")
    with pytest.raises(StorageError, match="lacks the column"):
        classification.published_rows(path, "omniglot")


def test_accuracies_survive_storage(tmp_path):
    save_accuracies(tmp_path / "scores.safetensors", ENTRIES, "glyphs", {"meta_steps": 3})
    loaded, dataset, settings = load_accuracies(tmp_path / "scores.safetensors")
    assert (dataset, settings) == ("glyphs", {"meta_steps": 3})
    for ours, theirs in zip(loaded, ENTRIES, strict=True):
        assert ours.name == theirs.name
        assert torch.equal(ours.values, theirs.values)


def test_pictures_are_the_same_twice(table):
    x = torch.arange(256, dtype=torch.uint8).repeat(40)[: 10 * 36].reshape(10, 1, 6, 6)
    batch = Batch(x, torch.arange(5).repeat_interleave(2))
    predicted = {"maml": (torch.zeros(4, 10, dtype=torch.int64), 3), "nearest_neighbour": (batch.y[None], 0)}
    quantiles = {"5-way": {gate: torch.rand(3, 5).sort(dim=1).values + 0.01 for gate in ("forget", "input")}}
    for draw in (
        lambda: image_figures.accuracy_against_steps(table, 5),
        lambda: image_figures.episode(Episode(batch, batch), predicted, 2),
        lambda: image_figures.gates(quantiles, [0.05, 0.25, 0.5, 0.75, 0.95]),
    ):
        first = draw()
        assert first.startswith(b"\x89PNG")
        assert first == draw()
