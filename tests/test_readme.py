"""README states figures; they are those of the committed results."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
HEADLINE = re.compile(
    r"from ten points MAML reaches a mean squared error of (?P<maml_k10_mse_step1>[\d.]+) after one gradient step and "
    r"(?P<maml_k10_mse_step10>[\d.]+) after ten; the pretrained network, fine-tuned on the same points, "
    r"(?P<pretrained_k10_mse_step10>[\d.]+); the oracle (?P<oracle_k10_mse_step0>[\d.]+) .*"
    r"The LSTM meta-learner reaches (?P<lstm_k10_mse_step5>[\d.]+) after its five updates"
)
ACCURACIES = re.compile(
    r"given one image each, MAML tells (?P<maml_5way_1shot>[\d.]+)% apart, given five (?P<maml_5way_5shot>[\d.]+)%; "
    r"nearest neighbours on pixels (?P<nearest_neighbour_5way_1shot>[\d.]+)% and "
    r"(?P<nearest_neighbour_5way_5shot>[\d.]+)%"
)

RETURNS = re.compile(
    r"raises its return from (?P<cheetah_dir_maml_return_step0>-?\d+) to (?P<cheetah_dir_maml_return_step1>-?\d+) .*"
    r"an ant from (?P<ant_dir_maml_return_step0>-?\d+) to (?P<ant_dir_maml_return_step1>-?\d+) .*"
    r"the pretrained policies reach (?P<cheetah_dir_pretrained_return_step1>-?\d+) and "
    r"(?P<ant_dir_pretrained_return_step1>-?\d+)"
)

SPEED = re.compile(
    r"takes (?P<ms>[\d.]+) ms on one core, (?P<floor>[\d.]+) times what its arithmetic alone would take, "
    r"where JAX takes (?P<jax_scan>[\d.]+) times as long, `higher` (?P<higher_loop>\d+) times"
)

CONCLUSIONS = re.compile(
    r"trained on a single sine wave it errs by (?P<training_tasks_1>[\d.]+) on others, on 16 by "
    r"(?P<training_tasks_16>[\d.]+), on all by (?P<training_tasks_all>[\d.]+); with one hidden layer by "
    r"(?P<layers_1>[\d.]+), with two, three and four by (?P<layers_2>[\d.]+), (?P<layers_3>[\d.]+) and "
    r"(?P<layers_4>\d+\.\d+)"
)


def test_the_headline_figures_are_those_of_the_committed_run():
    metrics = json.loads((ROOT / "reports/metrics.json").read_text())["sinusoid"]
    found = HEADLINE.search(" ".join(README.split()))
    assert found, "README's headline no longer has its known form"
    for name, text in found.groupdict().items():
        method, _, step = name.rpartition("_mse_step")
        key = f"mse_step{step}"
        digits = len(text.partition(".")[2])
        assert round(metrics[method][key], digits) == float(text), name


def test_the_accuracies_are_those_of_the_committed_run():
    metrics = json.loads((ROOT / "reports/metrics.json").read_text())["classification"]
    found = ACCURACIES.search(" ".join(README.split()))
    assert found, "README's accuracies no longer have their known form"
    for name, text in found.groupdict().items():
        method, way, shot = name.rsplit("_", 2)
        assert round(100 * metrics[f"{way}_{shot}"][method], 1) == float(text), name


def test_the_returns_are_those_of_the_committed_run():
    metrics = json.loads((ROOT / "reports/metrics.json").read_text())["locomotion"]
    found = RETURNS.search(" ".join(README.split()))
    assert found, "README's returns no longer have their known form"
    for name, text in found.groupdict().items():
        task, method, key = re.fullmatch(r"(\w+?_dir)_(\w+?)_(return_step\d)", name).groups()  # type: ignore[union-attr]
        assert f"{metrics[task][method][key]:.0f}" == text, name


def test_the_conclusions_are_those_of_the_committed_run():
    metrics = json.loads((ROOT / "reports/metrics.json").read_text())["ablation"]
    found = CONCLUSIONS.search(" ".join(README.split()))
    assert found, "README's conclusions no longer have their known form"
    for name, text in found.groupdict().items():
        experiment, _, condition = name.rpartition("_")
        assert round(metrics[experiment][condition], 2) == float(text), name


def test_the_speed_is_that_of_the_committed_measurement():
    results = json.loads((ROOT / "benchmarks/results/meta_step.json").read_text())
    contenders = results["meta_step"]["one_thread"]["contenders"]
    found = SPEED.search(" ".join(README.split()))
    assert found, "README's speed no longer has its known form"
    ours = contenders["metalib_fused"]
    expected = {name: contenders[name]["times_metalib_fused_median"] for name in ("jax_scan", "higher_loop")}
    expected |= {"ms": ours["ms_median"], "floor": ours["times_floor_median"]}
    for name, text in found.groupdict().items():
        assert round(expected[name], len(text.partition(".")[2])) == float(text), name


def test_every_link_leads_to_a_file():
    for target in re.findall(r"\]\(([^)#]+)", README):
        assert (ROOT / target).exists(), target


def test_the_two_commands_stand_at_the_top():
    top = README[: README.index("## ")]
    assert "make reproduce" in top
    assert "make test" in top


def test_the_python_examples_run(tmp_path, monkeypatch):
    """The second example as it stands; the first needs trained weights, which git does not hold."""
    first, second = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    names: dict[str, object] = {}
    exec("import torch\nx = torch.linspace(-4, 4, 10)[:, None]\n" + second, names)
    assert len(names["thetas"]) == 6  # type: ignore[arg-type]
    assert "TrainedMethod.load(" in first
