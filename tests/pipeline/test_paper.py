"""A run at paper scale as a whole, for the cheapest of its tasks and as few meta-steps as can be."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tools.paper import STAGES

ROOT = Path(__file__).resolve().parent.parent.parent
TASK = "point_navigation"
pytestmark = pytest.mark.pipeline


def run_at_paper_scale(folder):
    options = ("--meta-steps", "1", "--folder", folder / "copy", "--output", folder / "found")
    command = [sys.executable, "-m", "tools.paper", TASK, *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_make_hands_its_choices_on():
    command = ["make", "--dry-run", "--no-print-directory", "paper", "TASKS=ant_vel ant_dir", "META_STEPS=7"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "python -m tools.paper ant_vel ant_dir --meta-steps 7\n" in told
    told = subprocess.run(command[:-1], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "python -m tools.paper ant_vel ant_dir" in told
    assert "--meta-steps" not in told


def work_tree():
    return subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, check=True).stdout


def test_a_run_at_paper_scale_leaves_its_results_and_repeats_nothing_when_run_again(tmp_path):
    before = work_tree()
    assert f"Running stage 'meta_train_policy@{TASK}'" in run_at_paper_scale(tmp_path)
    found = tmp_path / "found"
    table = (found / "tables/locomotion.csv").read_bytes()
    rows = list(csv.DictReader(table.decode().splitlines()))
    assert {(row["task"], row["method"], row["rollouts"]) for row in rows} == {
        (TASK, method, k) for method in ("maml", "pretrained", "random", "oracle") for k in ("20", "40")
    }
    lock = YAML(typ="safe").load(found / "dvc.lock")["stages"]
    assert lock.keys() == {f"{stage}@{TASK}" for stage in ("generate_goals", *STAGES)}
    assert YAML(typ="safe").load(found / "params.yaml")["scale"] == "paper"
    report = (found / "report.md").read_text()
    for picture in (found / "figures").iterdir():
        assert f"figures/{picture.name}" in report
    page = (found / "README.md").read_text()
    assert f"make paper TASKS='{TASK}' META_STEPS=1\n" in page
    for curve in ("maml", "baselines-pretrained", "baselines-oracle"):
        assert len((found / f"curves/{TASK}-{curve}-curves.tsv").read_text().splitlines()) == 2

    assert "Running stage" not in run_at_paper_scale(tmp_path)
    assert (found / "tables/locomotion.csv").read_bytes() == table
    assert work_tree() == before
