"""The section of the report on locomotion, made from stored results."""

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import typer

from metalib.reporting.page import render_html
from metalib.return_files import save_returns, save_speeds
from metalib.storage import StorageError, write_text
from metalib.update_rules import MetaSGD
from stages import generate_goals
from stages.locomotion_report import locomotion_report, main
from tests.made_up_locomotion import made_up_returns, made_up_settings, made_up_speeds, write_made_up_results

PUBLISHED = Path(__file__).resolve().parent.parent / "published" / "maml_figure5_locomotion.csv"


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
    assert "inner loop in training" not in report.markdown
    page = render_html(report.markdown, "title", report.pictures)
    assert 'src="data:image/webp;base64,' in page
    gain = report.metrics["locomotion"]["ant_dir"]["maml"]["gain_step1"]
    assert gain == pytest.approx(391, abs=2)  # with 40 rollouts it would be 430
    assert "One gradient step on 20 rollouts" in report.headline
    assert "from 7 to 399 (ant, direction)" in report.headline
    assert set(report.table["rollouts"]) == {20, 40}
    for told in (
        "In this text K = 20",
        "Thin, dotted: MAML with K = 40.",
        "nearest to ours (ant, direction: pretrained, random at K = 40).",
        "The rate is halved from the second step on.",
        "over 40 frozen goals and 2 training seeds.",
    ):
        assert told in report.markdown
    json.dumps(report.metrics, allow_nan=False)


def test_the_text_fits_results_of_another_shape(made):
    """One seed, one K that nobody published, learned rates, no rollout that ended early."""
    scores = Path("artifacts/ant_dir/scores")
    entries = [replace(e, rollouts=2) for e in made_up_returns("ant_dir", n_seeds=1) if e.rollouts == 20]
    entries[0] = replace(entries[0], rates=(0.1, 0.1, 0.1))
    settings = made_up_settings("ant_dir", n_seeds=1)
    settings["maml"] |= {"rule": MetaSGD(5, 0.1).to_dict(), "pretraining_steps": 24}
    save_returns(scores / "returns.safetensors", entries, settings)
    save_speeds(scores / "speeds.safetensors", made_up_speeds("cheetah_vel"))
    text = made(("ant_dir",)).markdown
    for told in (
        "MAML's inner loop in training is not the paper's throughout: no inner step in the first 24 of 60 meta-steps, "
        "which train one policy for all goals (ant, direction).",
        "in meta-steps without an inner step, one return over many goals",
        "In this text K = 2,",
        "nearest to ours (ant, direction: MAML at K = 20; ant, direction: pretrained, random at K = 40)",
        "over 40 frozen goals and 1 training seed.",
        "*One seed, smoothed",
        "before adaptation, averaged over goals.",
        "Counted in training, one seed.",
        "(learned for every parameter; the mean is shown)",
        "The rate is the same at every step (MAML); halved from the second step on (pretrained, random).",
    ):
        assert told in text
    for untold in ("dotted", "Cross", "over seeds", "seeds together"):
        assert untold not in text
    assert " *\n" not in text  # Markdown would not see where the caption ends


def test_points_alone_have_nothing_published_beside_them(made):
    report = made(("point_navigation",))
    assert set(report.pictures) == {
        f"figures/{name}"
        for name in ("point_navigation_returns.png", "locomotion_training.png", "point_navigation.webp")
    }
    for told in ("the paper", "published figures", "How to read the comparison", "Half-cheetahs"):
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


@pytest.mark.usefixtures("made")
def test_some_tasks_get_a_report_of_their_own(capsys):
    here = (Path("data"), Path("artifacts"), PUBLISHED.parent, Path("alone"))
    main(*here, ["ant_dir"])
    assert set(pd.read_csv("alone/tables/locomotion.csv")["task"]) == {"ant_dir"}
    assert list(json.loads(Path("alone/metrics.json").read_text())["locomotion"]) == ["ant_dir"]
    named = re.findall(r"\]\((figures/[^)]+)\)", Path("alone/report.md").read_text())
    assert named
    assert all((Path("alone") / name).is_file() for name in named)
    with pytest.raises(typer.Exit):
        main(*here, ["ant"])
    assert "there is no task 'ant'; name some of cheetah_vel" in capsys.readouterr().err
    assert Path("alone/report.md").is_file()
