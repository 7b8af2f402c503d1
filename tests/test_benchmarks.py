import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from benchmarks import growth, machine, meta_step, render
from benchmarks.by_hand import Products, meta_gradient, train
from benchmarks.contenders import metalib_eager, torch_loop
from benchmarks.contenders.catalogue import CONTENDERS
from benchmarks.contest import compare
from benchmarks.floor import count, floor_ms, measure_rate
from benchmarks.measure import TOLERANCE, DisagreementError, contender, time_calls
from benchmarks.problem import Problem, draw_episodes, initial_theta, to_layers, to_theta
from benchmarks.processes import MeasurementError, measure
from benchmarks.summaries import rounded, summarise
from metalib.losses import MeanSquaredError
from metalib.meta_training.objectives import QueryLossAfterAdaptation
from metalib.meta_training.supervised import meta_gradient as metalib_gradient
from metalib.networks import MLP
from metalib.update_rules import GradientDescent
from tests.test_few_shot_benchmarks import made_up_few_shot_results

ROOT = Path(__file__).resolve().parent.parent
SMALL = Problem(tasks=3, support=4, query=5, width=6, inner_rate=0.1, initial_std=0.5)
SIZES = [SMALL, Problem(tasks=2, support=3, query=2, width=4, inner_steps=3, inner_rate=0.1, initial_std=0.5)]


def as_arrays(episodes, step=0):
    return tuple(part[step, 0].double().numpy() for batch in episodes for part in batch)


@pytest.mark.parametrize("problem", SIZES)
def test_the_floor_counts_what_autograd_does(problem):
    layers = [layer.requires_grad_() for layer in to_layers(initial_theta(problem)[0], problem)]
    (xs, ys), (query_xs, query_ys) = draw_episodes(problem, 1)
    with FlopCounterMode(display=False) as counter:
        for task in range(problem.tasks):
            moved = torch_loop.adapted(layers, xs[0, 0, task], ys[0, 0, task], problem)
            error = torch_loop.forward(moved, query_xs[0, 0, task]) - query_ys[0, 0, task]
            torch.autograd.grad((error**2).mean(), layers)
    assert counter.get_total_flops() == count(problem).operations


@pytest.mark.parametrize("problem", SIZES)
def test_the_floor_counts_what_the_derivation_by_hand_does(problem):
    products = Products()
    theta = initial_theta(problem)[0].double().numpy()
    meta_gradient(theta, as_arrays(draw_episodes(problem, 1)), problem, products)
    assert products.multiply_adds == count(problem).total


def test_the_floor_of_the_paper_s_meta_step():
    assert count(Problem()).total == 25 * 199_200  # 10 (2 * 1680 + 1640) for each of inner and query, and 99200
    assert floor_ms(Problem(), 2e9) == pytest.approx(25 * 199_200 / 1e6)
    assert count(Problem(seeds=5)).total == 5 * count(Problem()).total


@pytest.mark.parametrize("problem", SIZES)
def test_the_derivation_by_hand_is_the_meta_gradient(problem):
    theta = initial_theta(problem).double()
    episodes = draw_episodes(problem, 1)
    data = type(episodes)(*(type(batch)(*(part[0].double() for part in batch)) for batch in episodes))
    expected, loss = metalib_gradient(problem.objective(), theta, data)
    found, value = meta_gradient(theta[0].numpy(), as_arrays(episodes), problem, Products())
    np.testing.assert_allclose(found, expected[0], rtol=1e-10, atol=1e-13)
    assert value == pytest.approx(loss.item(), rel=1e-12)


@pytest.mark.parametrize("module", [metalib_eager, torch_loop])
def test_contenders_without_peers_agree_with_the_reference(module, tmp_path):
    theta, episodes = initial_theta(SMALL), draw_episodes(SMALL, 3)
    found = module.prepare(SMALL, theta, episodes, tmp_path)(theta, episodes)
    expected = train(theta[0].double().numpy(), [as_arrays(episodes, step) for step in range(3)], SMALL)
    assert found.shape == theta.shape
    np.testing.assert_allclose(found[0].numpy(), expected, atol=1e-6)


class FirstOrder(Problem):
    """The paper's meta-step without second derivatives."""

    def objective(self):
        loss = MeanSquaredError(MLP(self.sizes).network())
        return QueryLossAfterAdaptation(loss, GradientDescent(self.inner_rate, first_order=True), self.inner_steps)


@pytest.mark.parametrize("other", [FirstOrder(), Problem(inner_rate=0.0101), Problem(outer_rate=0.00101)])
def test_a_contender_that_computes_something_else_is_refused(monkeypatch, tmp_path, other):
    right = metalib_eager.prepare
    monkeypatch.setattr(metalib_eager, "prepare", lambda problem, *rest: right(other, *rest))
    with pytest.raises(DisagreementError, match="metalib_eager disagrees"):
        contender("metalib_eager", asdict(Problem()), threads=1, repeats=1, folder=str(tmp_path), steps=2)


def test_a_contender_that_agrees_is_measured(tmp_path):
    found = contender("metalib_eager", asdict(SMALL), threads=1, repeats=2, folder=str(tmp_path), steps=2)
    assert len(found["samples_ms"]) == 2
    assert found["largest_deviation"] < TOLERANCE
    assert found["peak_resident_mib"] >= found["resident_before_mib"] > 1


def test_layers_are_parts_of_theta():
    theta = initial_theta(SMALL)
    layers = to_layers(theta[0], SMALL)
    views = metalib_views(theta[0])
    assert all(torch.equal(layer, view) for layer, view in zip(layers, views, strict=True))
    assert torch.equal(to_theta(layers), theta)


def metalib_views(theta):
    return MLP(SMALL.sizes).network().unflatten(theta).values()


def test_samples_are_seconds_a_call(monkeypatch):
    calls = []
    monkeypatch.setattr("benchmarks.measure.LEAST_SECONDS", 1e-9)
    samples = time_calls(lambda: calls.append(1), 3)
    assert len(samples) == 3
    assert len(calls) == 2 + 3
    assert min(samples) >= 0


def test_arithmetic_has_a_rate(tmp_path, monkeypatch):
    assert measure_rate(1, str(tmp_path), seconds=0.01) > 1e7
    monkeypatch.setattr("metalib.compilation.native.compiler", lambda: None)
    assert measure_rate(1, str(tmp_path), seconds=0.01) > 1e7


def test_a_measurement_runs_in_a_process_of_its_own_and_fails_in_one_line(tmp_path):
    on = machine.cores()[-1:]
    assert measure("benchmarks.floor:measure_rate", {"seconds": 0.01, "folder": str(tmp_path)}, on, tmp_path) > 1e7
    with pytest.raises(MeasurementError, match="nowhere"):
        measure("benchmarks.nowhere:nothing", {}, on, tmp_path)


def test_figures_keep_five_digits():
    assert rounded({"a": [1.23456789, 7], "b": None}) == {"a": [1.2346, 7], "b": None}
    assert summarise([3.0, 1.0, 2.0], "ms") == {"ms_median": 2.0, "ms_min": 1.0, "samples": 3}


def test_facts_hold_no_host_name():
    import platform

    facts = json.dumps(machine.facts())
    assert len(platform.node()) < 3 or platform.node() not in facts
    assert machine.peak_resident_mib() > 1


def test_missing_peers_are_named_in_one_line(monkeypatch):
    monkeypatch.setattr(meta_step, "missing_packages", lambda: ["higher", "jax"])
    import typer

    app = typer.Typer()
    app.command()(meta_step.main)
    result = CliRunner().invoke(app, [])
    assert result.exit_code == 1
    assert "not installed: higher, jax; run `make bench`" in result.output


def test_every_contender_has_a_module():
    for name in CONTENDERS:
        assert (ROOT / "benchmarks" / "contenders" / f"{name}.py").is_file()


def made_up_results():
    process = {"samples_ms": [2.0, 4.0], "prepare_s": 9.0, "peak_resident_mib": 300.0, "largest_deviation": 1e-8}
    found = {name: [process] for name in growth.PROGRAMS}
    program = {"ms_median": 3.0, "ms_min": 2.0, "peak_resident_mib": 300.0, "prepare_first_s": 9.0}
    rows = [
        {"axis": axis, "value": value, "floor_ms": 0.5 * value, "programs": dict.fromkeys(growth.PROGRAMS, program)}
        for axis, values in growth.QUICK_AXES.items()
        for value in values
    ]
    seeds = {"shots": 10, "seeds": 5, "processes": 2, "ms_per_seed_step_median": 0.7, "ms_per_seed_step_min": 0.6}
    return {
        "schema": meta_step.SCHEMA,
        "quick": True,
        "machine": {"cpu": "a processor", "cores": 2},
        "versions": {"torch": "2", "jax": None},
        "labels": {name: CONTENDERS[name].label for name in found},
        "check": {"steps": 5, "tolerance": 1e-6},
        "meta_step": {"problem": asdict(Problem()), "one_thread": compare(Problem(), 1, 1e10, found)},
        "growth": rows,
        "seeds": [seeds],
    }


def test_the_page_is_rendered_from_the_figures(tmp_path):
    source, page, figure = tmp_path / "x.json", tmp_path / "docs" / "page.md", tmp_path / "docs" / "f" / "g.png"
    few_shot = tmp_path / "y.json"
    source.write_text(json.dumps(made_up_results()))
    few_shot.write_text(json.dumps(made_up_few_shot_results()))
    render.main(source, page, figure, few_shot)
    text = page.read_text()
    assert "| metalib: compiled by PyTorch | 3.000 | 2.000 | 1.000 | 3.012 | 9.000 | - | 1e-08 |" in text
    assert "| arithmetic floor | 0.996 | 0.996 | - | - | - | - | - |" in text
    assert "](f/g.png)" in text
    assert "| 10 | 5 | 0.700 | 0.600 |" in text
    assert "| cpu | a processor |" in text
    assert text.index("## Seeds batched") < text.index("## Convolutions") < text.index("## Machine and versions")
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_figures_of_another_form_are_refused_in_one_line(tmp_path, capsys):
    import typer

    source = tmp_path / "x.json"
    source.write_text(json.dumps({**made_up_results(), "schema": "meta-step benchmark 1"}))
    with pytest.raises(typer.Exit):
        render.main(source, tmp_path / "p.md", tmp_path / "f.png", source)
    assert "is not a meta-step benchmark 2; run" in capsys.readouterr().err


def test_a_page_without_measurements_is_refused_in_one_line(tmp_path, capsys):
    import typer

    with pytest.raises(typer.Exit):
        render.main(tmp_path / "none.json", tmp_path / "p.md", tmp_path / "f.png", tmp_path / "none.json")
    assert "none.json is missing" in capsys.readouterr().err
