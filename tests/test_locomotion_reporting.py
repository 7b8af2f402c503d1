"""Tables and figures of locomotion from hand-made returns."""

import math
from pathlib import Path

import pandas as pd
import pytest
import torch

from metalib.reporting import locomotion, locomotion_figures
from metalib.reporting.returns import (
    at_largest_k,
    at_smallest_k,
    beside_published,
    drawn_beside,
    headline_metrics,
    return_table,
)
from metalib.reporting.wording import counted, either
from metalib.return_files import Returns
from tests.made_up_locomotion import made_up_speeds

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
# With 40 rollouts it is worth 40 and 60, and 80 and 100.
MAML_40 = returns("cheetah_vel", "maml", [[[-202.0, -162.0], [-98.0, -18.0]], [[-202.0, -142.0], [-98.0, 2.0]]], 40)
ORACLE = returns("cheetah_vel", "oracle", [[[-60.0], [-40.0]]])
ORACLE_40 = returns("cheetah_vel", "oracle", [[[-62.0], [-44.0]]], 40)
ANT = returns("ant_dir", "maml", [[[10.0, 430.0]]])
ANT_40 = returns("ant_dir", "maml", [[[11.0, 500.0]]], 40)
ALL = [ANT_40, ANT, ORACLE_40, ORACLE, MAML_40, MAML]


@pytest.fixture(name="table")
def _table():
    return return_table(ALL, 0, 500)


def one(table, task, method, k, step):
    """The only such row."""
    rows = table.set_index(["task", "method", "rollouts", "gradient_step"]).loc[[(task, method, k, step)]]
    assert len(rows) == 1
    return rows.iloc[0]


def test_the_long_table_by_hand(table):
    assert list(table.columns) == COLUMNS.split()
    assert table[["task", "method", "rollouts", "gradient_step"]].to_numpy().tolist() == [
        ["cheetah_vel", "maml", 20, 0],
        ["cheetah_vel", "maml", 20, 1],
        ["cheetah_vel", "maml", 40, 0],
        ["cheetah_vel", "maml", 40, 1],
        ["cheetah_vel", "oracle", 20, 0],
        ["cheetah_vel", "oracle", 40, 0],
        ["ant_dir", "maml", 20, 0],
        ["ant_dir", "maml", 20, 1],
        ["ant_dir", "maml", 40, 0],
        ["ant_dir", "maml", 40, 1],
    ]
    before, after, _, after_40, oracle = (table.iloc[i] for i in range(5))
    assert before[["return_mean", "gain_mean", "gain_ci95_low", "gain_ci95_high"]].tolist() == [-150, 0, 0, 0]
    assert after["return_mean"] == pytest.approx((-185 - 65) / 2)
    assert after["gain_mean"] == pytest.approx((15 + 35) / 2)
    assert (after_40["return_mean"], after_40["gain_mean"]) == pytest.approx(((-152 - 8) / 2, (50 + 90) / 2))
    assert oracle["return_mean"] == -50
    assert after[["rollouts", "n_goals", "n_seeds", "env_steps"]].tolist() == [20, 2, 2, 7_600_000]


def test_intervals_of_different_k_come_from_different_resamples():
    values = torch.randn(1, 40, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    same = [Returns("ant_vel", "oracle", k, (), 0, values) for k in (20, 40)]
    rows = return_table(same, 0, 100)
    assert rows["return_mean"][0] == rows["return_mean"][1]
    assert rows["ci95_low"][0] != rows["ci95_low"][1]


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
    first = rows.iloc[0]
    assert (first["published"], first["published_halfwidth"], first["published_env_steps"]) == (-129.53, 16.75, 76e6)
    assert first["difference"] == pytest.approx(-150 + 129.53)
    assert pd.isna(rows.iloc[2]["published_env_steps"])  # nobody says how long the oracle was trained
    # The paper evaluated half-cheetahs with K = 20 only, and MAML's ant with both.
    shown = ["task", "method", "published_rollouts", "rollouts", "gradient_step", "published", "return_mean"]
    assert rows[shown].to_numpy().tolist() == [
        ["cheetah_vel", "maml", 20, 20, 0, -129.53, -150],
        ["cheetah_vel", "maml", 20, 20, 1, -78.57, -125],
        ["cheetah_vel", "oracle", 20, 20, 0, -54.47, -50],
        ["ant_dir", "maml", 20, 20, 0, 12.91, 10],
        ["ant_dir", "maml", 20, 20, 1, 434.36, 430],
        ["ant_dir", "maml", 40, 40, 0, 8.66, 11],
        ["ant_dir", "maml", 40, 40, 1, 499.15, 500],
    ]


@pytest.mark.parametrize(
    ("ours", "beside_20", "beside_40"),
    [((30,), 30, 30), ((2, 4), 4, 4), ((10, 30), 10, 30), ((30, 50), 30, 30)],  # the last two: of equals the smaller
)
def test_a_published_row_without_our_k_stands_beside_the_nearest(ours, beside_20, beside_40):
    table = return_table([returns("ant_dir", "maml", [[[1.0]]], rollouts=k) for k in ours], 0, 100)
    rows = beside_published(table, PUBLISHED)
    assert rows[["published_rollouts", "rollouts"]].to_numpy().tolist() == [[20, beside_20], [40, beside_40]]


def test_figures_stand_at_the_smallest_k_beside_the_published_k_nearest_to_it():
    random = returns("ant_dir", "random", [[[3.0, 4.0]]])
    table = return_table([*ALL, random], 0, 100)
    drawn = drawn_beside(table, beside_published(table, PUBLISHED))
    ant = drawn[drawn["task"] == "ant_dir"]
    assert ant[["method", "gradient_step", "published", "drawn_rollouts"]].to_numpy().tolist() == [
        ["maml", 0, 12.91, 20],
        ["maml", 1, 434.36, 20],
        ["random", 0, 3.11, 20],
        ["random", 1, 9.25, 20],
    ]
    assert locomotion.at_other_k(drawn) == ["ant, direction: random at K = 40"]
    assert set(at_smallest_k(table)["rollouts"]) == {20}
    # Only methods with several K have a larger one.
    assert at_largest_k(table)[["task", "method", "rollouts"]].drop_duplicates().to_numpy().tolist() == [
        ["cheetah_vel", "maml", 40],
        ["cheetah_vel", "oracle", 40],
        ["ant_dir", "maml", 40],
    ]


def test_what_the_page_says_of_published_rows(table):
    comparison = beside_published(table, PUBLISHED)
    shown = locomotion.published_rows(comparison, "cheetah_vel")
    row = shown.iloc[1].to_dict()
    assert row["paper"] == "-78.6 ± 10.0"
    assert row["here"] == "-125.0 [-185.0, -65.0]"
    assert row["here - paper"] == "-46.4"
    assert (row["environment steps, paper"], row["environment steps, here"]) == ("76 M", "7.6 M")
    shares = ["10% (half-cheetah, velocity)", "2.1% (ant, direction)"]  # 7.6 of 76 and of 368 M
    assert locomotion.training_shares(comparison) == shares
    longer = comparison.assign(env_steps=152_000_000)
    assert locomotion.training_shares(longer)[0] == "200% (half-cheetah, velocity)"


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
    assert [row["ruined"] for row in rows] == [None, None]
    worse = table.copy()
    worse.loc[(worse["task"] == "ant_dir") & (worse["gradient_step"] == 1), "return_mean"] = 9.5
    assert locomotion.headline(worse)[1]["ruined"] == {"steps": 1, "return_mean": 9.5}
    assert locomotion.maml_moves(rows) == (
        "One gradient step on 20 rollouts moves MAML's mean return from -150 to -125 (half-cheetah, velocity), "
        "from 10 to 430 (ant, direction)."
    )
    assert locomotion.maml_moves([]) == ""


def test_numbers_in_words():
    assert counted([1, 1], "seed") == "1 seed"
    assert counted([3], "seed") == "3 seeds"
    assert counted([3, 1], "seed") == "1 to 3 seeds"
    assert either([40, 20, 40]) == "20 or 40"


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
    assert rows.iloc[1].tolist()[1:] == ["MAML", "40", "-150.0 [-202.0, -98.0]", "-80.0", "70.0 [50.0, 90.0]"]
    assert rows.iloc[2].tolist()[1:] == ["oracle", "-", "-50.0 [-60.0, -40.0]", "-", "-"]
    assert rows["K"].tolist() == ["20", "40", "-", "20", "40"]
    alone = locomotion.gain_rows(return_table([ORACLE], 0, 100))
    assert list(alone.columns) == ["task", "method", "K", "before"]


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


def test_the_larger_k_is_drawn_of_maml_only():
    def picture(*returns):
        table = return_table(returns, 0, 100)
        return locomotion_figures.return_against_steps(table, beside_published(table, PUBLISHED))

    assert picture(MAML, ORACLE) == picture(MAML, ORACLE, ORACLE_40)
    assert picture(MAML, ORACLE) != picture(MAML, MAML_40, ORACLE)
