"""The real pipeline at quick scale, in temporary clones of the work tree."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.pages import python_examples
from tools.clone import clone_work_tree
from tools.quick import reproduce_quickly

ROOT = Path(__file__).resolve().parent.parent.parent
pytestmark = pytest.mark.pipeline


def dvc(clone, *arguments):
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    command = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True, check=True).stdout


def outputs(clone):
    files = [p for top in ("data", "artifacts", "reports") for p in (clone / top).rglob("*") if p.is_file()]
    return {str(path.relative_to(clone)): path.read_bytes() for path in files if path.name != ".gitignore"}


@pytest.fixture(scope="module", name="clones")
def _clones(tmp_path_factory):
    """Two clones, each with its own run of the whole graph: stages one after another, and two at a time."""
    before = subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, check=True).stdout
    clones = []
    for name, slots in (("first", 1), ("second", 2)):
        clone = tmp_path_factory.mktemp(name) / "a user's folder"
        clone_work_tree(ROOT, clone)
        assert reproduce_quickly(clone, slots) == 0
        clones.append(clone)
    after = subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, check=True).stdout
    assert before == after, "a run in a clone changed the work tree"
    return clones


def test_two_runs_give_the_same_bytes(clones):
    first, second = (outputs(clone) for clone in clones)
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []
    first_lock, second_lock = (YAML(typ="safe").load(clone / "dvc.lock") for clone in clones)
    assert first_lock == second_lock  # in which the order of stages is that in which they ended


def test_the_run_leaves_every_promised_output(clones):
    clone = clones[0]
    rows = list(csv.DictReader((clone / "reports/tables/sinusoid.csv").read_text().splitlines()))
    assert {row["method"] for row in rows} == {"maml", "lstm", "pretrained", "scratch", "oracle"}
    steps = {int(row["gradient_step"]) for row in rows if row["method"] != "oracle"}
    assert steps == set(range(11))
    assert all(row["gradient_step"] == "0" for row in rows if row["method"] == "oracle")
    classes = list(csv.DictReader((clone / "reports/tables/classification.csv").read_text().splitlines()))
    assert {row["method"] for row in classes} == {
        "maml", "lstm", "pretrained", "scratch", "nearest_neighbour", "prototypical"
    }  # fmt: skip
    conditions = list(csv.DictReader((clone / "reports/tables/ablation.csv").read_text().splitlines()))
    assert {row["experiment"] for row in conditions} == {"training_tasks", "layers", "units", "outside"}
    metrics = json.loads((clone / "reports/metrics.json").read_text())["sinusoid"]
    assert metrics["best_non_adapting"] < metrics["zero_function"]
    assert metrics["maml_k10"]["mse_step1"] < metrics["maml_k10"]["mse_step0"]
    page = (clone / "reports/index.html").read_text()
    assert "scale: quick" in page
    assert (clone / "reports/index.html").stat().st_size < 3_000_000
    markdown = (clone / "reports/report.md").read_text()
    for picture in (clone / "reports/figures").iterdir():
        assert f"figures/{picture.name}" in markdown


def test_the_examples_that_load_trained_weights_run(clones):
    """README's examples one after another, and those of the pages behind it each by itself."""
    readme = "\n".join(python_examples((ROOT / "README.md").read_text()))
    pages = [page.read_text() for page in (ROOT / "docs").glob("*.md")]
    examples = [readme, *(code for page in pages for code in python_examples(page) if "artifacts/" in code)]
    assert len(examples) > 1
    assert all("artifacts/" in example for example in examples)
    for example in examples:
        subprocess.run([sys.executable, "-c", example], cwd=clones[0], check=True)


def test_nothing_is_left_to_do_and_status_is_clean(clones):
    assert "Data and pipelines are up to date" in dvc(clones[0], "repro") + dvc(clones[0], "status")
    assert json.loads(dvc(clones[0], "status", "--json")) == {}


def test_a_later_section_reruns_later_stages_only(clones):
    would_run = dvc(clones[0], "repro", "--dry")
    assert "Running stage" not in would_run
    params = clones[1] / "params.yaml"
    params.write_text(params.read_text().replace("\n  gradient_steps: 10\n", "\n  gradient_steps: 9\n"))
    would_run = dvc(clones[1], "repro", "--dry")
    assert "Running stage 'evaluate@sinusoid-maml'" in would_run
    assert "Running stage 'meta_train" not in would_run
    assert "Running stage 'evaluate_classifier" not in would_run


def test_changing_the_machine_settings_reruns_nothing(clones):
    machine = clones[0] / "machine.yaml"
    machine.write_text(machine.read_text().replace("workers: auto", "workers: 1"))
    assert "Running stage" not in dvc(clones[0], "repro", "--dry")
