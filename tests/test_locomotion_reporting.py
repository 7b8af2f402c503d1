"""Tables, figures and the page of locomotion from hand-made returns."""

import json
import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch

from metalib.reporting import locomotion, locomotion_figures
from metalib.reporting.page import render_html
from metalib.reporting.returns import beside_published, headline_metrics, return_table
from metalib.return_files import Returns
from metalib.storage import StorageError, write_text
from stages import generate_goals
from stages.locomotion_report import locomotion_report
from tests.made_up_locomotion import made_up_settings, made_up_speeds, write_made_up_results

PUBLISHED = Path(__file__).resolve().parent.parent / "published" / "maml_figure5_locomotion.csv"
COLUMNS = (
    "task method rollouts gradient_step return_mean ci95_low ci95_high gain_mean gain_ci95_low gain_ci95_high "
    "n_goals n_seeds env_steps"
)


def returns(task, method, values, rollouts=20, env_steps=7_600_000):
    values = torch.tensor(values, dtype=torch.float64)
    return Returns(task, method, rollouts, (0.1,) * (values.shape[2] - 1), env_steps, values)


# Two seeds, two goals that differ by 100, one gradient step worth 10 and 20 to the first, 30 and 40 to the second.
MAML = returns("cheetah_vel", "maml", [[[-200.0, -190.0], [-100.0, -70.0]], [[-200.0, -180.0], [-100.0, -60.0]]])
ORACLE = returns("cheetah_vel", "oracle", [[[-60.0], [-40.0]]])
ANT = returns("ant_dir", "maml", [[[10.0, 500.0]]], rollouts=20)


@pytest.fixture(name="table")
def _table():
    return return_table([ANT, ORACLE, MAML], 0, 500)


def test_the_long_table_by_hand(table):
    assert list(table.columns) == COLUMNS.split()
    assert table[["task", "method", "gradient_step"]].to_numpy().tolist() == [
        ["cheetah_vel", "maml", 0],
        ["cheetah_vel", "maml", 1],
        ["cheetah_vel", "oracle", 0],
        ["ant_dir", "maml", 0],
        ["ant_dir", "maml", 1],
    ]
    before, after, oracle = (table.iloc[i] for i in range(3))
    assert before[["return_mean", "gain_mean", "gain_ci95_low", "gain_ci95_high"]].tolist() == [-150, 0, 0, 0]
    assert after["return_mean"] == pytest.approx((-185 - 65) / 2)
    assert after["gain_mean"] == pytest.approx((15 + 35) / 2)
    assert oracle["return_mean"] == -50
    assert after[["rollouts", "n_goals", "n_seeds", "env_steps"]].tolist() == [20, 2, 2, 7_600_000]


def test_gains_are_paired_so_that_the_spread_of_goals_does_not_enter(table):
    after = table.iloc[1]
    assert (after["ci95_low"], after["ci95_high"]) == pytest.approx((-185, -65))
    assert (after["gain_ci95_low"], after["gain_ci95_high"]) == pytest.approx((15, 35))


def test_a_return_that_is_not_finite_is_left_out_of_mean_and_gain():
    broken = returns("ant_vel", "random", [[[1.0, math.nan], [3.0, 4.0]]])
    rows = return_table([broken], 0, 100)
    assert rows["return_mean"].tolist() == [2.0, 4.0]
    assert rows["gain_mean"].tolist() == [0.0, 1.0]


def test_rows_beside_the_published_ones(table):
    rows = beside_published(table, PUBLISHED)
    assert len(rows) == len(table)
    first = rows.iloc[0]
    assert (first["published"], first["published_halfwidth"], first["published_env_steps"]) == (-129.53, 16.75, 76e6)
    assert first["difference"] == pytest.approx(-150 + 129.53)
    assert pd.isna(rows.iloc[2]["published_env_steps"])  # nobody says how long the oracle was trained
    # The paper evaluated ant_dir with K = 20 and 40; the row of our K stands beside ours.
    assert rows.iloc[4][["published", "published_rollouts"]].tolist() == [434.36, 20]
    other = beside_published(return_table([returns("ant_dir", "maml", [[[1.0]]], rollouts=30)], 0, 100), PUBLISHED)
    assert other[["published", "published_rollouts"]].to_numpy().tolist() == [[8.66, 40]]


def test_what_the_page_says_of_published_rows(table):
    comparison = beside_published(table, PUBLISHED)
    shown = locomotion.published_rows(comparison, "cheetah_vel")
    row = shown.iloc[1].to_dict()
    assert row["paper"] == "-78.6 ± 10.0"
    assert row["here"] == "-125.0 [-185.0, -65.0]"
    assert row["here - paper"] == "-46.4"
    assert (row["environment steps, paper"], row["environment steps, here"]) == ("76 M", "7.6 M")
    assert locomotion.training_shares(comparison) == ["10% (half-cheetah, velocity)"]


def test_every_published_figure_names_its_source_and_its_training():
    published = pd.read_csv(PUBLISHED)
    assert published["source"].str.contains("cbfinn/maml_rl").all()
    steps = published[(published["method"] == "maml") & published["env_steps"].notna()].groupby("task")["env_steps"]
    assert steps.max().to_dict() == {
        # meta-steps x goals x rollouts before and after x horizon
        "cheetah_vel": 475 * 40 * 10 * 2 * 200,
        "cheetah_dir": 100 * 40 * 20 * 2 * 200,
        "ant_vel": 375 * 40 * 20 * 2 * 200,
        "ant_dir": 575 * 40 * 40 * 2 * 200,
    }


def test_headline_and_metrics(table):
    assert headline_metrics(table)["cheetah_vel"] == {
        "maml": {"return_step0": -150.0, "return_step1": -125.0, "gain_step1": 25.0},
        "oracle": {"return_step0": -50.0},
    }
    rows = locomotion.headline(table)
    assert [row["name"] for row in rows] == ["half-cheetah, velocity", "ant, direction"]
    assert rows[0]["oracle_0"]["return_mean"] == -50
    assert rows[0]["pretrained_1"] is None
    assert locomotion.maml_moves(rows) == (
        "One gradient step moves MAML's mean return from -150 to -125 (half-cheetah, velocity), "
        "from 10 to 500 (ant, direction)."
    )


def test_gains_as_the_page_shows_them(table):
    rows = locomotion.gain_rows(table)
    assert rows.iloc[0].tolist() == [
        "half-cheetah, velocity",
        "MAML",
        "20",
        "-150.0 [-200.0, -100.0]",
        "-125.0",
        "25.0 [15.0, 35.0]",
    ]
    assert rows.iloc[1].tolist()[2:] == ["-", "-50.0 [-60.0, -40.0]", "-", "-"]


def test_settings_that_all_share_stand_once_and_counts_apart():
    settings = {task: made_up_settings(task) for task in ("cheetah_vel", "cheetah_dir")}
    common = locomotion.common_settings(settings)
    assert common == {"hidden": "64, 64", "activation": "tanh", "timing": "paper", "gamma": "0.99", "meta_batch": "40"}
    rows = locomotion.setting_rows(settings)
    bound = rows[(rows["method"] == "MAML") & (rows["setting"] == "kl_bound")].iloc[0]
    assert bound.tolist()[2:] == ["0.01", "0.02"]
    assert not rows["setting"].isin([*common, "versions", "n_broken"]).any()
    incidents = locomotion.incident_rows(settings)
    assert incidents.iloc[0].tolist() == ["half-cheetah, velocity", "MAML", "3", "1", "0"]
    assert list(incidents["method"]) == ["MAML", "pretrained"] * 2
    assert locomotion.incident_rows({"cheetah_vel": {"random": {}}}).empty


def test_networks_are_told_from_the_published_one():
    theirs = {"maml": {"hidden": [100, 100], "activation": "ReLU"}}
    ours = {"maml": {"hidden": [64, 64], "activation": "tanh"}}
    found = locomotion.networks({"cheetah_vel": theirs, "cheetah_dir": ours, "ant_vel": ours})
    assert [(n["name"], n["published"], len(n["tasks"])) for n in found] == [
        ("100-100 ReLU", True, 1),
        ("64-64 tanh", False, 2),
    ]
    with pytest.raises(StorageError, match="do not say 'hidden' of maml"):
        locomotion.networks({"ant_vel": {"oracle": {}}})


def test_rates_used_and_tried():
    rates = {"cheetah_vel": {"random": {"0.5": -80.0, "2.0": None, "0.1": -90.25, "chosen": 0.5}}}
    used = [MAML, returns("cheetah_vel", "random", [[[1.0, 2.0, 3.0]]]), ORACLE]
    table = locomotion.rates_table(rates, used)
    assert list(table.columns[4:]) == ["rate 0.1", "rate 0.5", "rate 2.0"]
    assert table.iloc[0].tolist()[1:] == ["MAML", "0.1", "given", "-", "-", "-"]
    assert table.iloc[1].tolist()[1:] == ["random", "0.1, 0.1", "0.5", "-90.2", "-80.0", "-"]
    assert len(table) == 2


def test_pictures_are_the_same_twice_and_few_bytes(table):
    curve = pd.DataFrame({"env_steps": [1e6, 2e6], "return": [1.0, 2.0], "validation_return": [math.nan, 2.0]})
    for draw in (
        lambda: locomotion_figures.return_against_steps(table, beside_published(table, PUBLISHED)),
        lambda: locomotion_figures.learning_curves({"ant_vel": {"oracle": curve}}),
        lambda: locomotion_figures.speed_against_time([made_up_speeds("cheetah_vel"), made_up_speeds("ant_dir")]),
    ):
        first = draw()
        assert first.startswith(b"\x89PNG")
        assert first == draw()
        assert len(first) < 120_000


@pytest.fixture(name="made")
def _made(project_files):
    """Results of two tasks in an empty folder; a function that makes the section from them."""
    tasks = ("ant_dir", "point_navigation")
    write_made_up_results(Path("artifacts"), tasks)
    for task in tasks:
        generate_goals.main(task, Path("data") / task)
    run: Any = SimpleNamespace(params=SimpleNamespace(report=SimpleNamespace(seed=0, bootstrap_samples=100)))
    return lambda tasks=tasks: locomotion_report(run, Path("data"), Path("artifacts"), PUBLISHED, tasks)


def test_the_section_is_made_from_stored_results(made):
    report = made()
    named = set(re.findall(r"\]\((figures/[^)]+)\)", report.markdown))
    assert named == set(report.pictures)
    assert {"figures/ant_dir.webp", "figures/point_navigation.webp"} < named
    assert "Each stands 20 times among the 40" in report.markdown
    assert "64-64 tanh (ant, direction; point navigation), not the published one." in report.markdown
    assert "nan" not in report.markdown
    page = render_html(report.markdown, "title", report.pictures)
    assert 'src="data:image/webp;base64,' in page
    gain = report.metrics["locomotion"]["ant_dir"]["maml"]["gain_step1"]
    assert gain == pytest.approx(391, abs=2)
    assert "from 7 to 399 (ant, direction)" in report.headline
    json.dumps(report.metrics, allow_nan=False)


def test_points_alone_have_nothing_published_beside_them(made):
    report = made(("point_navigation",))
    assert set(report.pictures) == {
        f"figures/{name}"
        for name in ("point_navigation_returns.png", "locomotion_training.png", "point_navigation.webp")
    }
    for told in ("the paper", "published figures", "How to read the comparison"):
        assert told not in report.markdown


def test_without_a_renderer_there_are_no_films(made):
    for path in Path("artifacts").glob("*/scores/video.webp"):
        path.unlink()
    report = made()
    assert "webp" not in report.markdown
    assert not any(name.endswith(".webp") for name in report.pictures)


def test_a_curve_without_its_columns_is_refused(made):
    write_text(Path("artifacts/ant_dir/maml/curves.tsv"), "env_steps\tmeta_step\n1\t1\n")
    with pytest.raises(StorageError, match="lacks the column return_after, return_before"):
        made()
