import json
from dataclasses import asdict, replace

import pytest
import torch
import typer
from torch.utils._pytree import tree_map
from typer.testing import CliRunner

from benchmarks import classification, render
from benchmarks.few_shot import saving
from benchmarks.few_shot.contenders import CONTENDERS, OF_METHOD, step_with_rule
from benchmarks.few_shot.measure import (
    TOLERANCE,
    checked_deviation,
    contender,
    meta_gradients,
    telling,
)
from benchmarks.few_shot.problem import (
    CONVOLUTIONS,
    LSTM_ON_IMAGES,
    LSTM_ON_SINUSOIDS,
    Problem,
    draw_episodes,
    start,
)
from benchmarks.few_shot.race import compare
from benchmarks.few_shot.sections import sections
from benchmarks.few_shot.torch_layers import by_loop, by_vmap
from benchmarks.measure import DisagreementError
from benchmarks.processes import MeasurementError
from metalib.compilation import repeat_eagerly
from metalib.compilation.repeat import at
from metalib.meta_training.checkpoints import Checkpoints, Progress
from metalib.meta_training.supervised import meta_gradient
from metalib.randomness import generator
from metalib.update_rules import GradientDescent
from metalib.update_rules.fused_lstm import kernel_obstacle

SMALL = Problem("conv4", "maml", tasks=3, shots=2, queries=3, inner_steps=1, width=4, ways=3, size=20)
SMALL_LSTM = Problem("mlp", "lstm", tasks=2, shots=4, queries=5, inner_steps=3, width=6)
SMALL_LSTM_ON_IMAGES = replace(SMALL, method="lstm", inner_steps=2)


def in_double(tree):
    return tree_map(lambda leaf: leaf.double() if leaf.is_floating_point() else leaf, tree)


@pytest.mark.parametrize("make", [by_loop, by_vmap])
@pytest.mark.parametrize("problem", [SMALL, replace(SMALL, inner_steps=2, size=9)])
def test_torch_layers_give_the_meta_gradient(make, problem):
    """At random parameters, ReLU's kink and all: float64 does not err on its side."""
    phi = torch.randn(1, problem.coordinates, generator=generator(0, "phi"), dtype=torch.float64) / 2
    data = at(in_double(draw_episodes(problem, 1)), 0)
    expected, expected_loss = meta_gradient(problem.objective(problem.rule), phi, data)
    found, loss = make(problem)(phi, data)
    torch.testing.assert_close(loss, expected_loss)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)


def deviation(name, problem, folder, step=None):
    state, episodes = start(problem), draw_episodes(problem, 2)
    program = CONTENDERS[name].prepare(problem, state, episodes, folder) if step is None else repeat_eagerly(step, 0, 0)
    return checked_deviation(name, program, problem, state, episodes)


@pytest.mark.parametrize("problem", [SMALL, SMALL_LSTM, SMALL_LSTM_ON_IMAGES], ids=["maml", "lstm", "lstm on images"])
def test_contenders_agree_with_the_reference(problem, tmp_path):
    for name in OF_METHOD[problem.method]:
        if not CONTENDERS[name].needs_compiler:
            assert 0 < deviation(name, problem, tmp_path) < TOLERANCE / 3, name


@pytest.mark.parametrize("problem", [SMALL_LSTM, SMALL_LSTM_ON_IMAGES], ids=["sinusoids", "images"])
def test_the_fused_kernel_agrees_with_the_reference(problem, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp()
    if reason := kernel_obstacle(folder):
        pytest.skip(reason)
    assert 0 < deviation("lstm_fused", problem, folder) < TOLERANCE / 3


@pytest.mark.parametrize("rule", [GradientDescent(0.4, first_order=True), GradientDescent(0.41)])
def test_a_contender_that_computes_something_else_is_refused(rule, tmp_path):
    with pytest.raises(DisagreementError, match="metalib_eager disagrees"):
        deviation("metalib_eager", SMALL, tmp_path, step_with_rule(SMALL, rule))


def test_what_is_checked_is_the_mean_of_the_meta_gradients(tmp_path):
    state, episodes = in_double((start(SMALL), draw_episodes(SMALL, 2)))
    program = CONTENDERS["metalib_eager"].prepare(SMALL, state, episodes, tmp_path)
    first, second = (meta_gradient(SMALL.objective(SMALL.rule), state.phi, at(episodes, step))[0] for step in (0, 1))
    torch.testing.assert_close(meta_gradients(program, state, episodes), 0.09 * first + 0.1 * second)


def test_no_relu_is_near_its_kink_where_contenders_are_checked():
    module = CONVOLUTIONS.architecture.network()._module
    nearest = []
    for block in ("block1", "block2", "block3", "block4"):
        layer = module.get_submodule(f"{block}.normalisation")
        layer.register_forward_hook(lambda _, __, output: nearest.append(output.abs().min().item()))
    phi = telling(CONVOLUTIONS, start(CONVOLUTIONS)).phi[0]
    parameters = CONVOLUTIONS.architecture.network().unflatten(phi)
    for images in (image for batch in draw_episodes(CONVOLUTIONS, 1) for image in batch.x[0, 0]):
        torch.func.functional_call(module, parameters, (images,))
    assert len(nearest) == 4 * 2 * 8
    assert min(nearest) > 0.1


@pytest.mark.parametrize(("name", "problem"), [("torch_loop", SMALL), ("lstm_plain", SMALL_LSTM)])
def test_a_contender_is_measured(name, problem, tmp_path):
    found = contender(name, asdict(problem), threads=1, repeats=2, folder=str(tmp_path))
    assert len(found["samples_ms"]) == 2
    assert found["largest_deviation"] < TOLERANCE
    assert found["peak_resident_mib"] > 1


def test_the_sizes_that_are_measured():
    assert (CONVOLUTIONS.coordinates, LSTM_ON_IMAGES.coordinates, LSTM_ON_SINUSOIDS.coordinates) == (28357, 28357, 1761)
    assert LSTM_ON_SINUSOIDS.coordinate_steps == 1761 * 5 * 5
    assert draw_episodes(SMALL, 2).support.x.shape == (2, 1, 3, 3 * 2, 1, 20, 20)
    assert draw_episodes(SMALL, 2).query.y[1, 0, 2].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def process(ms):
    return {"samples_ms": [ms, 2 * ms], "prepare_s": 9.0, "peak_resident_mib": 300.0, "largest_deviation": 1e-6}


def test_contenders_are_compared_with_the_last_of_their_method():
    rows = compare(SMALL_LSTM, {"lstm_fused": [process(2.0)], "lstm_plain": [process(16.0)]})
    assert rows["lstm_fused"]["times_as_fast_median"] == pytest.approx(8)
    assert rows["lstm_plain"]["times_as_fast_min"] == 1
    steps = SMALL_LSTM.coordinates * 2 * 3
    assert rows["lstm_fused"]["us_per_coordinate_step_min"] == pytest.approx(2000 / steps)


def test_savings_are_timed_and_come_back(tmp_path):
    found = saving.save("sinusoid_maml", threads=1, repeats=3, folder=str(tmp_path))
    assert len(found["samples_ms"]) == 3
    assert min(found["samples_ms"]) > 0
    numbers = 3 * 5 * 1761 * 4 + 700 * 16  # phi and two moments in float32; the curve's steps and losses
    assert numbers < found["kib"] * 1024 < numbers + 2000


def test_state_that_does_not_come_back_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Checkpoints, "restore", lambda self, initial: Progress(0, initial, {}))
    with pytest.raises(saving.NotRestoredError):
        saving.save("sinusoid_maml", threads=1, repeats=1, folder=str(tmp_path))


def made_up_few_shot_results():
    maml = compare(CONVOLUTIONS, {name: [process(2.0)] for name in OF_METHOD["maml"]})
    lstm = compare(LSTM_ON_IMAGES, {"lstm_fused": [process(2.0)], "lstm_plain": [process(16.0)]})
    run = {"kib": 10.4, "ms_median": 3.0, "ms_min": 2.0, "ms_max": 6.0, "share_median": 1e-4, "share_max": 2e-4}
    return {
        "schema": classification.SCHEMA,
        "quick": False,
        "machine": {"cpu": "a processor", "cores": 2},
        "versions": {"torch": "2", "jax": None},
        "labels": {name: each.label for name, each in CONTENDERS.items()},
        "run_labels": {name: each.label for name, each in saving.RUNS.items()},
        "check": {"steps": 2, "tolerance": 1e-3},
        "convolutions": [
            {"problem": asdict(CONVOLUTIONS), "coordinates": 28357, "one_thread": {"threads": 1, "contenders": maml}}
        ],
        "lstm": [
            {"problem": asdict(LSTM_ON_IMAGES), "coordinates": 28357, "one_thread": {"threads": 1, "contenders": lstm}}
        ],
        "saving": {"every_seconds": 30.0, "runs": dict.fromkeys(saving.RUNS, run)},
    }


def test_sections_are_rendered_from_the_figures():
    text = "\n".join(sections(json.loads(json.dumps(made_up_few_shot_results()))))
    assert "### 5-way 1-shot, one thread (1)" in text
    assert "all threads" not in text
    assert "| metalib, compiled | 3.000 | 2.000 | 1.000 | 9.000 | - | 300 | 1e-06 |" in text
    assert "28,357 coordinates, 1 task, T = 12" in text
    assert "| fused kernel | 3.000 | 2.000 | 0.009 | 8.000 | 9.000 | - | 300 | 1e-06 |" in text
    assert "| MAML on sinusoids, five seeds | 10 | 3.000 | 2.000 | 6.000 | 0.010 % | 0.020 % |" in text
    assert "within 1e-03 of its length" in text


def test_other_machines_have_columns_of_their_own():
    one = made_up_few_shot_results()
    other = {**one, "machine": {"cpu": "another", "cores": 2}}
    assert "| cpu | a processor |\n" in render._machine({"a": one, "b": one})
    assert "| cpu | a processor | another |\n" in render._machine({"a": one, "b": other})


def test_a_failed_measurement_is_told_in_one_line(monkeypatch, tmp_path):
    def fail(quick):
        raise MeasurementError("DisagreementError: torch_vmap disagrees")

    monkeypatch.setattr(classification, "run", fail)
    app = typer.Typer()
    app.command()(classification.main)
    result = CliRunner().invoke(app, ["--output", str(tmp_path / "x.json")])
    assert result.exit_code == 1
    assert result.output == "error: DisagreementError: torch_vmap disagrees\n"
    assert not (tmp_path / "x.json").exists()
