"""Each stage as a plain function: what it writes, and what it refuses before any work."""

import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
import typer

from metalib.metric_learning import prototype_predictions
from metalib.return_files import TASKS
from metalib.score_files import SPLIT_ACCURACIES_SCHEMA, load_accuracies
from metalib.storage import load_tensors, read_checked_json
from metalib.tasks.dataset import ANCHORS_SCHEMA, load_task_set
from metalib.tasks.image_tasks import Condition, load_frozen_episodes
from metalib.trained_method import TrainedMethod
from metalib.update_rules import LSTMRule
from stages import (
    evaluate,
    evaluate_ablation,
    evaluate_classifier,
    evaluate_nearest_neighbour,
    generate_goals,
    generate_image_tasks,
    generate_tasks,
    meta_train,
    meta_train_ablation,
    meta_train_classifier,
    report,
    running,
    train_baseline,
    train_classifier_baseline,
)
from stages.train_baseline import Method
from stages.update_rules import MetaLearner
from tests.made_up_locomotion import write_made_up_results
from tools.quick import set_scale

ROOT = Path(__file__).resolve().parent.parent


def edit(old, new):
    path = Path("params.yaml")
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.fixture(name="tiny")
def _tiny(project_files):
    """Settings small enough for a test, in an empty working directory."""
    shrink()
    return project_files


def shrink():
    set_scale(Path("params.yaml"), "quick")
    edit("meta_steps: 1000", "meta_steps: 3")
    edit("steps: 1000", "steps: 3")
    edit("ablation: {meta_steps: 20,", "ablation: {meta_steps: 2,")
    edit("training_tasks: [1, 4, 16, 64, 256, 1024]", "training_tasks: [1, 4]")
    edit("layers: [1, 2, 3, 4]", "layers: [2, 3]")
    edit("units: [10, 20, 40, 80]", "units: [10]")
    edit("meta_train_lstm: {meta_steps: 20,", "meta_train_lstm: {meta_steps: 3,")
    edit("shots: [5, 10, 20]\n  hidden_size", "shots: [10]\n  hidden_size")
    edit("validation_episodes: 20, test_episodes: 40", "validation_episodes: 3, test_episodes: 6")
    edit("filters: 8", "filters: 3")
    edit("meta_steps: 30", "meta_steps: 2")
    edit("meta_steps: 10,", "meta_steps: 2,")
    edit(
        "pretrained_steps: 20, prototypical_steps: 20, seeds: [0]",
        "pretrained_steps: 2, prototypical_steps: 2, seeds: [0, 1]",
    )
    edit("gradient_steps: 12", "gradient_steps: 2")
    edit("[0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0]", "[0.1, 1.0]")
    edit("shots: [5, 10, 20]    # K: MAML", "shots: [5, 10]    # K: MAML")
    edit("gradient_steps: 10", "gradient_steps: 2")
    Path("machine.yaml").write_text("workers: 1\nbackend: eager\n")


def refused(capsys, call, *arguments):
    """Run a stage that must fail; return its message, which must be one line."""
    with pytest.raises(typer.Exit) as exit_:
        call(*arguments)
    assert exit_.value.exit_code == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


DATA, MAML = Path("data/sinusoid"), Path("artifacts/sinusoid/maml")
IMAGES, CLASSIFIERS = Path("data/images"), Path("artifacts/images")
REPORT = (Path("data"), Path("artifacts"), ROOT / "published", Path("reports"))


def run_sinusoid():
    generate_tasks.main(DATA)
    for learner in MetaLearner:
        meta_train.main(learner, DATA, MAML.parent / learner)
    for baseline in Method:
        train_baseline.main(baseline, DATA, MAML.parent / baseline)
    for name in (*MetaLearner, *Method):
        evaluate.main(DATA, MAML.parent / name, MAML.parent / "scores" / name)
    meta_train_ablation.main(DATA, MAML.parent / "ablation")
    evaluate_ablation.main(DATA, MAML.parent, MAML.parent / "scores" / "ablation")


def run_images():
    generate_image_tasks.main(IMAGES)
    for learner in MetaLearner:
        meta_train_classifier.main(learner, IMAGES, CLASSIFIERS / learner)
    for baseline in train_classifier_baseline.Method:
        train_classifier_baseline.main(baseline, IMAGES, CLASSIFIERS / baseline)
    for name in (*MetaLearner, *train_classifier_baseline.Method):
        evaluate_classifier.main(IMAGES, CLASSIFIERS / name, CLASSIFIERS / "scores" / name)
    evaluate_nearest_neighbour.main(IMAGES, CLASSIFIERS / "scores" / "nearest_neighbour")


@pytest.fixture(scope="module", name="done")
def _done(tmp_path_factory):
    """A folder in which every stage has run once."""
    folder = tmp_path_factory.mktemp("done")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("params.yaml", "machine.yaml"):
            shutil.copy(ROOT / name, folder / name)
        patch.chdir(folder)
        shrink()
        run_sinusoid()
        run_images()
        write_made_up_results(REPORT[1])
        for family in TASKS:
            generate_goals.main(family, REPORT[0] / family)
        report.main(*REPORT)
    return folder


def test_every_seed_of_a_classifier_is_evaluated_on_every_split(done, monkeypatch):
    monkeypatch.chdir(done)
    scores = CLASSIFIERS / "scores" / "prototypical"
    entries, _, _ = load_accuracies(scores / "scores.safetensors")
    beside, _ = load_tensors(scores / "splits.safetensors", SPLIT_ACCURACIES_SCHEMA)
    for entry in entries:
        condition = Condition(entry.way, entry.shot)
        method = TrainedMethod.load(CLASSIFIERS / "prototypical" / f"{condition.name}.safetensors")
        assert len(method.phi) == 2
        stored = {"test": entry.values[..., 0]}
        stored.update({split: beside[f"{condition.name}-{split}"] for split in ("train", "validation")})
        for split, values in stored.items():
            episodes = load_frozen_episodes(IMAGES, split, condition)
            predicted = prototype_predictions(method.architecture.network(), entry.way, method.phi, episodes, 20)
            assert torch.equal(values, (predicted == episodes.query.y).float().mean(-1))


def test_the_stages_one_after_the_other(done, monkeypatch):
    monkeypatch.chdir(done)
    assert sorted(path.name for path in MAML.iterdir()) == ["curves.tsv", "k10.safetensors", "k5.safetensors"]
    method = TrainedMethod.load(MAML / "k10.safetensors")
    assert method.phi.shape == (2, 1761)
    assert method.settings["versions"]["torch"] == torch.__version__.split("+")[0]
    assert method.settings["meta_steps"] == 3
    page = Path("reports/index.html").read_text()
    assert "http://" not in page
    assert "https://" not in page
    assert page.count("data:image/png;base64,") == 8 + 4
    assert page.count("data:image/webp;base64,") == 5
    films = 5 * 250_000 * 4 / 3  # as large as evaluation may make them; those of this test are a few bytes
    assert len(page) + films < 3_000_000
    assert "on the first 6 test episodes" in Path("reports/report.md").read_text()
    assert not list(done.rglob("*.partial"))


def test_what_every_stage_wrote_may_be_replaced_by_the_next_run(done):
    folders = {path.parent for path in done.rglob("*.safetensors") if ".cache" not in path.parts} | {done / "reports"}
    assert len(folders) > 20
    assert {folder: list(running._strangers(folder)) for folder in folders} == {folder: [] for folder in folders}


def test_the_tables_have_every_method(done):
    sinusoid, images = (pd.read_csv(done / "reports" / "tables" / f"{n}.csv") for n in ("sinusoid", "classification"))
    assert set(sinusoid["method"]) == {"maml", "lstm", "pretrained", "scratch", "oracle"}
    assert set(images["method"]) == {"maml", "lstm", "pretrained", "scratch", "nearest_neighbour", "prototypical"}
    assert list(images.columns) == (
        [
            "dataset",
            "method",
            "way",
            "shot",
            "gradient_step",
            "accuracy_mean",
            "ci95_low",
            "ci95_high",
            "seed_std",
            "n_episodes",
            "n_seeds",
        ]
    )
    assert images["accuracy_mean"].between(0, 1).all()
    bodies = pd.read_csv(done / "reports" / "tables" / "locomotion.csv")
    assert bodies.groupby("task")["method"].nunique().tolist() == [4] * 5
    adapting = images[~images["method"].isin(["nearest_neighbour", "prototypical"])]
    assert (adapting.groupby(["method", "way", "shot"])["gradient_step"].max() == 2).all()


def test_a_trained_classifier_is_used_from_python(done):
    learner = TrainedMethod.load(done / CLASSIFIERS / "lstm" / "5way-1shot.safetensors").learner()
    assert isinstance(learner.rule, LSTMRule)
    x, y = torch.randint(256, (5, 1, 28, 28), dtype=torch.uint8), torch.arange(5)
    assert learner.adapt(x, y)(x).shape == (5, 5)
    with pytest.raises(ValueError, match=r"y class numbers \[k\] from 0 to 4, got \[5, 1, 28, 28\]"):
        learner.adapt(x, y + 1)


def test_another_dataset_than_glyphs_must_be_there(tiny, capsys):
    edit("dataset: glyphs", "dataset: omniglot")
    assert "raw/images" in refused(capsys, generate_image_tasks.main, IMAGES)


def test_episodes_that_the_images_cannot_serve_are_refused(tiny, capsys):
    edit("queries: 5", "queries: 12")
    message = refused(capsys, generate_image_tasks.main, IMAGES)
    assert "5-way episodes with 1 support and 12 query examples a class" in message
    assert not IMAGES.exists()


def test_a_way_without_settings_is_refused(tiny, capsys):
    edit("ways: [5]", "ways: [5, 7]")
    message = refused(capsys, generate_image_tasks.main, IMAGES)
    assert "meta_train_classifier.inner_rate: lacks 7-way" in message


def test_scratch_and_maml_start_from_the_same_initialisation(tiny):
    generate_tasks.main(DATA)
    edit("learning_rate: 0.01   # Adam, outer", "learning_rate: 1.0e-30  # Adam, outer")
    meta_train.main(MetaLearner.MAML, DATA, MAML)
    train_baseline.main(Method.SCRATCH, DATA, Path("scratch"))
    scratch = TrainedMethod.load("scratch/weights.safetensors").phi
    # three steps of 1e-30 move the zeros only, by less than any float32 beside 0.01 can show
    torch.testing.assert_close(TrainedMethod.load(MAML / "k5.safetensors").phi, scratch, rtol=0, atol=1e-29)


def test_datasets_have_the_sizes_of_the_settings_and_share_no_task(tiny):
    generate_tasks.main(DATA)
    validation, test = (load_task_set(DATA / f"{name}.safetensors") for name in ("validation", "test"))
    assert validation.support.x.shape == (50, 20, 1)
    assert test.query.x.shape == (100, 100, 1)
    assert not set(validation.tasks.amplitude.tolist()) & set(test.tasks.amplitude.tolist())
    illustrations = load_task_set(DATA / "illustrations.safetensors")
    signs = torch.sign(illustrations.support.x[..., 0])
    assert bool((signs == signs[:, :1]).all())  # support in one half of the inputs
    anchors = read_checked_json(DATA / "anchors.json", ANCHORS_SCHEMA)
    assert anchors["best_non_adapting"] < anchors["zero_function"]


def test_results_do_not_depend_on_the_number_of_workers(tiny):
    generate_tasks.main(DATA)
    meta_train.main(MetaLearner.MAML, DATA, MAML)
    Path("machine.yaml").write_text("workers: 2\nbackend: eager\n")
    meta_train.main(MetaLearner.MAML, DATA, Path("two"))
    for path in MAML.iterdir():
        assert path.read_bytes() == (Path("two") / path.name).read_bytes()


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        (generate_tasks.main, (DATA,)),
        (meta_train.main, (MetaLearner.MAML, DATA, MAML)),
        (train_baseline.main, (Method.ORACLE, DATA, Path("oracle"))),
        (evaluate.main, (DATA, MAML, Path("scores"))),
        (generate_image_tasks.main, (IMAGES,)),
        (meta_train_classifier.main, (MetaLearner.LSTM, IMAGES, CLASSIFIERS / "lstm")),
        (report.main, REPORT),
    ],
)
def test_every_stage_checks_the_whole_settings_file_first(tiny, capsys, call, arguments):
    edit("bootstrap_samples", "bootstrap_sample")
    message = refused(capsys, call, *arguments)
    assert "report.bootstrap_sample: unknown key" in message
    assert "did you mean bootstrap_samples?" in message
    assert not Path("data").exists()


def test_a_missing_dataset_is_refused(tiny, capsys):
    assert "distribution.json is missing; run the stage" in refused(
        capsys, meta_train.main, MetaLearner.MAML, DATA, MAML
    )
    assert not MAML.exists()


def test_damaged_data_and_weights_are_refused(tiny, capsys):
    generate_tasks.main(DATA)
    train_baseline.main(Method.SCRATCH, DATA, Path("scratch"))
    weights = Path("scratch/weights.safetensors")
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert "checksum mismatch" in refused(capsys, evaluate.main, DATA, Path("scratch"), Path("scores"))
    weights.write_bytes((DATA / "test.safetensors").read_bytes())
    message = refused(capsys, evaluate.main, DATA, Path("scratch"), Path("scores"))
    assert "holds 'sinusoid tasks 1', but 'trained method 2' is needed" in message
    weights.write_bytes(content)
    test = DATA / "test.safetensors"
    test.write_bytes(test.read_bytes()[:-100])
    assert "test.safetensors is damaged" in refused(capsys, evaluate.main, DATA, Path("scratch"), Path("scores"))
    assert "holds no trained method" in refused(capsys, evaluate.main, DATA, Path("nothing"), Path("scores"))
    assert not Path("scores").exists()


def test_an_unwritable_output_is_refused_before_any_work(tiny, capsys):
    generate_tasks.main(DATA)
    Path("file").write_text("")
    assert "cannot write file/maml" in refused(capsys, meta_train.main, MetaLearner.MAML, DATA, Path("file/maml"))
    assert "cannot write file: it is a file" in refused(capsys, meta_train.main, MetaLearner.MAML, DATA, Path("file"))
    assert "holds the project itself" in refused(capsys, generate_tasks.main, Path())
    assert "holds the project itself" in refused(capsys, generate_tasks.main, Path(".."))
    Path("sources").mkdir()
    Path("sources/__init__.py").write_text("")
    assert "it holds __init__.py, which no stage wrote" in refused(capsys, generate_tasks.main, Path("sources"))
    assert Path("sources/__init__.py").exists()
    assert Path("params.yaml").exists()


def test_a_dataset_that_does_not_fit_the_settings_is_refused(tiny, capsys):
    generate_tasks.main(DATA)
    train_baseline.main(Method.SCRATCH, DATA, Path("scratch"))
    edit("support_points: 20", "support_points: 30")
    edit("shots: [5, 10, 20]    # K at test", "shots: [5, 10, 30]    # K at test")
    message = refused(capsys, evaluate.main, DATA, Path("scratch"), Path("scores"))
    assert "30 points asked for, but the task dataset holds 20" in message
    for content in ("{}", '{"schema": "sinusoid distribution 1", "data": {"x": [0, 1]}}', "{", "3"):
        (DATA / "distribution.json").write_text(content)
        assert "distribution.json" in refused(capsys, meta_train.main, MetaLearner.MAML, DATA, MAML)


def test_published_figures_that_are_no_table_are_refused(done, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "copy"
    shutil.copytree(done, folder)
    monkeypatch.chdir(folder)
    shutil.copytree(ROOT / "published", "published")
    table = Path("published/sinusoid.csv")
    table.write_text("method,mse\nmaml,1\n")
    call = (report.main, Path("data"), Path("artifacts"), Path("published"), Path("reports"))
    assert "sinusoid.csv lacks the column gradient_steps" in refused(capsys, *call)
    table.unlink()
    assert "sinusoid.csv cannot be read" in refused(capsys, *call)
    assert Path("reports/index.html").exists()


def test_cuda_without_cuda_is_refused(tiny, capsys, monkeypatch):
    generate_tasks.main(DATA)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("METALIB_DEVICE", "cuda")
    assert "device: 'cuda' was asked for, but torch sees no CUDA device" in refused(
        capsys, meta_train.main, MetaLearner.MAML, DATA, MAML
    )


def test_diverged_training_is_refused_and_keeps_the_old_result(tiny, capsys):
    generate_tasks.main(DATA)
    meta_train.main(MetaLearner.MAML, DATA, MAML)
    before = (MAML / "k5.safetensors").read_bytes()
    edit("inner_rate: 0.01", "inner_rate: 1.0e+30")
    message = refused(capsys, meta_train.main, MetaLearner.MAML, DATA, MAML)
    assert "training diverged: the loss of seed 0 is" in message
    assert "inner_rate that is too large" in message
    assert (MAML / "k5.safetensors").read_bytes() == before
    assert sorted(path.name for path in MAML.parent.iterdir()) == ["maml"]


def test_divergence_in_a_worker_process_is_refused_alike(tiny, capsys):
    generate_tasks.main(DATA)
    edit("inner_rate: 0.01", "inner_rate: 1.0e+30")
    Path("machine.yaml").write_text("workers: 2\nbackend: eager\n")
    assert "training diverged" in refused(capsys, meta_train.main, MetaLearner.MAML, DATA, MAML)


def test_sources_that_change_meanwhile_void_the_result(tiny, capsys, monkeypatch):
    prints = iter(["before", "after"])
    monkeypatch.setattr(running, "fingerprint_sources", lambda: next(prints))
    assert "the sources changed while generate_tasks ran" in refused(capsys, generate_tasks.main, DATA)
    assert not DATA.exists()


@pytest.mark.parametrize("name", ["generate_tasks", "meta_train", "train_baseline", "evaluate", "report"])
def test_help_teaches(name):
    command = [sys.executable, "-m", f"stages.{name}", "--help"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "e.g." in shown.stdout
    assert "settings:" in shown.stdout.replace("\n", " ")
