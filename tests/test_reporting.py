import math
from pathlib import Path

import pandas as pd
import pytest
import torch

from metalib.randomness import generator
from metalib.reporting import figures, tables
from metalib.reporting.page import markdown_table, render_html
from metalib.reporting.sinusoid import single_runs_table, unseen_half_errors
from metalib.score_files import Scores, load_scores, save_scores
from metalib.storage import StorageError
from metalib.tasks import Sinusoid
from metalib.tasks.dataset import draw_illustrations

PUBLISHED = Path(__file__).resolve().parent.parent / "published" / "sinusoid.csv"
COLUMNS = (
    "method train_shots test_shots query_points gradient_step mse_mean mse_median ci95_low ci95_high "
    "seed_std n_tasks n_seeds n_diverged"
)
ANCHORS = {"zero_function": 4.0, "best_non_adapting": 3.0}


def scores(method, train_shots, test_shots, by_step, query_points=600):
    """Two seeds and three tasks, all with the same error at each step."""
    values = torch.tensor(by_step, dtype=torch.float64).expand(2, 3, -1)
    return Scores(method, train_shots, test_shots, query_points, 0.01, values.contiguous())


ENTRIES = [
    scores("maml", 10, 5, [3.0, 0.6, 0.4]),
    scores("maml", 10, 10, [3.0, 0.4, 0.2]),
    scores("maml", 5, 5, [3.0, 0.5, 0.3]),
    scores("maml", 5, 5, [9.0, 9.0, 9.0], query_points=5),
    scores("pretrained", None, 5, [3.1, 2.4, 2.2]),
    scores("pretrained", None, 10, [3.1, 2.0, 1.5]),
    scores("oracle", None, 10, [0.01]),
]


@pytest.fixture(name="table")
def _table():
    return tables.score_table(ENTRIES, 100.0, 0, 100)


def test_the_long_table_has_the_promised_columns_and_rows(table):
    assert list(table.columns) == COLUMNS.split()
    assert len(table) == 6 * 3 + 1
    row = table[
        (table.method == "maml") & (table.train_shots == 10) & (table.test_shots == 5) & (table.gradient_step == 1)
    ]
    assert row[["mse_mean", "mse_median", "ci95_low", "ci95_high"]].to_numpy() == pytest.approx(0.6)
    assert row[["n_tasks", "n_seeds", "n_diverged"]].to_numpy().tolist() == [[3, 2, 0]]
    assert table[table.method == "pretrained"].train_shots.isna().all()


def test_train_shots_is_empty_in_the_file_for_methods_not_trained_per_k(table, tmp_path):
    text = table.to_csv(index=False)
    assert "\npretrained,,5,600,0,3.1" in text
    assert "\nmaml,10,5,600,1,0.6" in text


def test_own_shots_keeps_each_method_at_its_own_k_and_query_size(table):
    shown = tables.own_shots(table, 600)
    assert {(m, k) for m, k in zip(shown.method, shown.test_shots, strict=True)} == {
        ("maml", 5),
        ("maml", 10),
        ("pretrained", 5),
        ("pretrained", 10),
        ("oracle", 10),
    }


def test_steps_and_examples_needed_by_hand(table):
    shown = tables.own_shots(table, 600)
    steps = tables.steps_needed(shown, [2.0, 0.3, 0.1]).set_index(["method", "test_shots"])
    assert steps.loc[("maml", 5)].tolist()[:2] == [1, 2]
    assert pd.isna(steps.loc[("maml", 5), "0.1"])
    assert steps.loc[("pretrained", 10), "2"] == 1
    assert steps.loc[("oracle", 10), "0.1"] == 0
    examples = tables.examples_needed(shown, [2.0, 0.25], 2).set_index("method")
    assert examples.loc["maml", "2"] == 5
    assert examples.loc["maml", "0.25"] == 10
    assert examples.loc["pretrained", "2"] == 10
    assert pd.isna(examples.loc["pretrained", "0.25"])


def test_figures_beside_the_published_ones(table):
    beside = tables.beside_published(table, ANCHORS, PUBLISHED, 600)
    maml = beside[(beside.method == "maml") & (beside.gradient_step == 1)].iloc[0]
    assert maml.published == 0.67
    assert maml.ours == pytest.approx(0.6)
    assert maml.difference == pytest.approx(-0.07)
    pretrained = beside[(beside.method == "pretrained") & (beside.gradient_step == 1)].iloc[0]
    assert pretrained.ours == pytest.approx(2.4)  # not trained per K, so it stands beside the row of K = 10
    assert set(beside["left_out"]) == {""}
    worse = table.assign(n_diverged=table["gradient_step"])  # one more pair a step
    assert set(tables.beside_published(worse, ANCHORS, PUBLISHED, 600)["left_out"]) == {"", "1 of 6"}
    zero = beside[beside.method == "zero_function"].iloc[0]
    assert zero.difference == pytest.approx(4.0 - 4.2517)
    assert len(beside) == 4  # published steps 5 and 10 were not run here


def test_what_diverged_is_said_with_of_how_many():
    row = {"n_tasks": 600, "n_seeds": 5, "n_diverged": 2}
    assert tables.left_out(row) == "2 of 3,000"
    assert tables.left_out({**row, "n_diverged": 0}) == ""


def test_published_errors_among_single_runs():
    apart = scores("maml", 10, 5, [3.0, 0.6, 0.4])
    apart.values[1] += 0.1  # the other seed errs by 0.7 after one step: more than the published 0.67
    found = single_runs_table([apart, *ENTRIES[1:]], 100.0, PUBLISHED, 0, 2000)
    assert found["gradient steps"].tolist() == [1]  # 5 and 10 were not run here
    row = found.iloc[0]
    assert (row["published"], row["95% of them"]) == (0.67, "[0.600, 0.700]")
    assert abs(float(row["at or below the published"].rstrip("%")) - 50) < 5


def test_headline_metrics(table):
    metrics = tables.headline_metrics(tables.own_shots(table, 600), ANCHORS, {"pretrained": 1})["sinusoid"]
    assert metrics["maml_k10"] == {"mse_step0": 3.0, "mse_step1": 0.4, "mse_step2": 0.2}
    assert metrics["oracle_k10"] == {"mse_step0": 0.01}
    assert metrics["zero_function"] == 4.0


def test_every_published_figure_names_its_source():
    published = pd.read_csv(PUBLISHED)
    assert published["source"].str.len().gt(10).all()


def test_scores_survive_storage(tmp_path):
    save_scores(tmp_path / "s.safetensors", ENTRIES[:2], {"seeds": [0, 1]})
    loaded, settings = load_scores(tmp_path / "s.safetensors")
    assert settings == {"seeds": [0, 1]}
    assert [(e.method, e.train_shots, e.test_shots) for e in loaded] == [("maml", 10, 5), ("maml", 10, 10)]
    assert torch.equal(loaded[1].values, ENTRIES[1].values)
    with pytest.raises(StorageError):
        load_scores(tmp_path / "none.safetensors")


def test_markdown_table():
    frame = pd.DataFrame(
        {"name": ["a", "b"], "value": [1.23456, math.nan], "count": pd.array([1, None], dtype="Int64")}
    )
    assert markdown_table(frame).splitlines() == [
        "| name | value | count |",
        "|---|---:|---:|",
        "| a | 1.235 | 1 |",
        "| b | - | - |",
    ]


def test_a_page_holds_its_pictures_and_refuses_a_missing_one():
    page = render_html("![sine](figures/a.png)\n\n| x |\n|---|\n| 1 |", "title", {"figures/a.png": b"png"})
    assert 'src="data:image/png;base64,cG5n"' in page
    assert "<td>1</td>" in page
    with pytest.raises(KeyError):
        render_html("![sine](figures/b.png)", "title", {})


def test_figures_are_the_same_bytes_each_time_and_leave_global_settings_alone(table):
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    shown = tables.own_shots(table, 600)
    first, second = (figures.error_against_steps(shown, ANCHORS) for _ in range(2))
    assert first == second
    assert first.startswith(b"\x89PNG")
    assert dict(mpl.rcParams) == before


def test_the_error_in_the_unseen_half_counts_only_points_without_support():
    illustrations = draw_illustrations(Sinusoid(), generator(0, "illustrations"), 2, 4)
    truth = illustrations.query.y[..., 0]
    wrong_where_seen = truth.clone()
    wrong_where_seen[0, 101:] += 7  # the first task's support lies in the upper half
    wrong_where_seen[1, :101] += 7  # the second's in the lower half
    predicted = {
        "maml": torch.stack([truth, wrong_where_seen], dim=1),
        "scratch": torch.stack([truth, truth + 2], dim=1),
    }
    errors = unseen_half_errors(illustrations, predicted)
    assert errors == {"MAML": pytest.approx(0, abs=1e-12), "scratch": pytest.approx(4, rel=1e-5)}
