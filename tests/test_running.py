"""The output of a stage: what it may replace, what it refuses to, and what a kill leaves of it."""

import ast
from pathlib import Path

import pytest
import safetensors.torch
import torch
import typer

from metalib.storage import save_tensors, write_json, write_text
from stages import evaluate, generate_image_tasks
from stages.running import PARAMS, stage
from tests.test_stages import ROOT, refused


@pytest.fixture(autouse=True)
def _in_a_project(project_files):
    """Every test runs in a project's folder of its own."""


def run(folder, *inputs, value=0):
    """Run a made-up stage; its result is one file of weights."""
    with stage("made_up", PARAMS) as made_up, made_up.output(folder, *inputs) as place:
        save_tensors(place / "weights.safetensors", "made up 1", {"phi": torch.tensor([value])}, {})


def weights(folder):
    (value,) = safetensors.torch.load_file(folder / "weights.safetensors")["phi"].tolist()
    return value


def no_work(*_, **__):
    raise AssertionError("work was begun")


USER_FILES = [
    "notes.md",
    "weights.pt",
    "maml/k5.safetensors",
    "HEAD",
    "sinusoid.csv",
    "alphabet/character01/0001.png",
    "figures/mine.png",
    "tables/mine.csv",
    ".hidden",
    "config.json",
]


@pytest.mark.parametrize("name", USER_FILES)
def test_files_that_no_stage_wrote_are_never_replaced(capsys, monkeypatch, name):
    write_text(Path("mine") / name, "of a user")
    monkeypatch.setattr(Path, "mkdir", no_work)
    message = refused(capsys, run, Path("mine"))
    assert f"cannot write mine: it holds {name}, which no stage wrote" in message
    assert "name another folder" in message
    assert (Path("mine") / name).read_text() == "of a user"


def test_one_file_of_a_user_among_results_is_enough(capsys):
    run(Path("result"))
    write_text(Path("result/notes.md"), "of a user")
    assert "it holds notes.md" in refused(capsys, run, Path("result"))


def test_a_link_in_a_folder_is_of_a_user(capsys):
    Path("elsewhere").mkdir()
    run(Path("result"))
    Path("result/link").symlink_to(Path("elsewhere").resolve())
    assert "it holds link" in refused(capsys, run, Path("result"))


@pytest.mark.parametrize(
    "content", [safetensors.torch.save({"lora": torch.zeros(2)}), b"torn"], ids=["of another program", "torn"]
)
def test_weights_of_others_are_never_replaced(capsys, content):
    Path("models").mkdir()
    Path("models/model.safetensors").write_bytes(content)
    assert "it holds model.safetensors, which no stage wrote" in refused(capsys, run, Path("models"))
    assert Path("models/model.safetensors").read_bytes() == content


def test_an_earlier_result_is_replaced(capsys):
    for value in (1, 2):
        run(Path("result"), value=value)
        assert weights(Path("result")) == value
    assert [path.name for path in Path("result").parent.glob("*result*")] == ["result"]


def test_a_report_is_an_earlier_result():
    for name in ("report.md", "index.html", "tables/sinusoid.csv", "figures/gates.png", "figures/ant_dir.webp"):
        write_text(Path("reports") / name, "")
    write_json(Path("reports/metrics.json"), {})
    write_text(Path("reports/figures/.DS_Store"), "of a file manager")
    run(Path("reports"), value=3)
    assert weights(Path("reports")) == 3


def test_an_empty_folder_is_written_to():
    Path("empty/within").mkdir(parents=True)
    run(Path("empty"), value=4)
    assert weights(Path("empty")) == 4


def test_behind_a_link_the_folder_is_replaced_and_the_link_stays():
    Path("disk").mkdir()
    Path("result").symlink_to("disk")
    for value in (5, 6):
        run(Path("result"), value=value)
    assert Path("result").is_symlink()
    assert weights(Path("disk")) == 6


@pytest.mark.parametrize("output", ["data", "data/sinusoid", "data/../data/sinusoid"])
def test_what_the_stage_reads_is_never_replaced(capsys, output):
    run(Path("data/sinusoid"), value=7)
    message = refused(capsys, run, Path(output), Path("artifacts"), Path("data/sinusoid"))
    assert f"cannot write {output}: the result would replace data/sinusoid, which the stage reads" in message
    assert weights(Path("data/sinusoid")) == 7


STAGES = [path for path in sorted((ROOT / "stages").glob("*.py")) if "run.output(" in path.read_text()]


@pytest.mark.parametrize("path", STAGES, ids=lambda path: path.stem)
def test_every_stage_tells_all_that_it_reads(path):
    tree = ast.parse(path.read_text())
    main = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "main")
    paths = {each.arg for each in main.args.args if ": Annotated[Path," in ast.unparse(each)}
    calls = [node for node in ast.walk(main) if isinstance(node, ast.Call) and ast.unparse(node.func) == "run.output"]
    told = [[ast.unparse(argument) for argument in call.args] for call in calls]
    assert [(names[0], set(names)) for names in told] == [("output", paths)]


@pytest.mark.parametrize("output", ["raw", "raw/images"])
def test_the_folder_of_images_of_the_settings_is_never_replaced(capsys, monkeypatch, output):
    image = Path("raw/images/images_background/Greek/character01/0001_01.png")
    write_text(image, "")
    monkeypatch.setattr(generate_image_tasks, "_splits", no_work)
    message = refused(capsys, generate_image_tasks.main, Path(output))
    assert f"cannot write {output}: the result would replace raw/images, which the stage reads" in message
    assert image.exists()


@pytest.mark.parametrize("output", ["artifacts/sinusoid", "published", ".git"])
def test_evaluation_replaces_no_folder_that_holds_others(capsys, output):
    run(Path("artifacts/sinusoid/maml"), value=8)
    write_text(Path("published/sinusoid.csv"), "method,mse\n")
    write_text(Path(".git/HEAD"), "ref: refs/heads/main\n")
    before = sorted(Path().rglob("*"))
    message = refused(capsys, evaluate.main, Path("data/sinusoid"), Path("artifacts/sinusoid/maml"), Path(output))
    assert f"cannot write {output}: " in message
    assert sorted(Path().rglob("*")) == before


def test_what_a_kill_during_the_last_deletion_left_is_in_nobodys_way():
    run(Path("result"), value=1)
    write_text(Path(".result.old.partial/weights.safetensors"), "half deleted")
    run(Path("result"), value=2)
    assert weights(Path("result")) == 2
    assert list(Path().glob(".result*")) == []


def test_a_result_that_fails_leaves_the_earlier_one():
    run(Path("result"), value=1)
    with pytest.raises(typer.Exit), stage("made_up", PARAMS) as made_up, made_up.output(Path("result")):
        raise KeyboardInterrupt
    assert weights(Path("result")) == 1
    assert list(Path().glob(".result*")) == []
