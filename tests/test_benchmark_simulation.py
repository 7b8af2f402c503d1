import json

import pytest
import typer

from benchmarks import machine, render_simulation, simulation
from benchmarks.processes import measure
from benchmarks.simulators import gymnasium_vector, metalib_and_limit


def test_the_limit_takes_the_collector_s_own_steps():
    found = metalib_and_limit("ant_vel", "paper", tasks=2, rollouts=3, horizon=10, repeats=2, threads=1)
    assert found["steps"] == 2 * 3 * 10
    assert len(found["seconds"]) == len(found["limit_seconds"]) == 2
    row = simulation.compare(found)
    assert row["steps_per_second"] == pytest.approx(60 / (sum(found["seconds"]) / 2))
    assert row["share_of_limit"] > 0


def test_shares_are_medians_of_pairs():
    found = {"steps": 100, "seconds": [2.0, 4.0, 10.0], "limit_seconds": [1.0, 4.0, 1.0], "peak_resident_mib": 1.0}
    row = simulation.compare(found)
    assert row["share_of_limit"] == pytest.approx(0.5)
    assert row["steps_per_second"] == pytest.approx(25)
    assert row["limit_steps_per_second"] == pytest.approx(100)


def test_gymnasium_s_environments_are_stepped(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo writes MUJOCO_LOG.TXT
    found = gymnasium_vector("cheetah", "sync", n_bodies=2, steps=3, repeats=2, threads=1)
    assert found["steps"] == 6
    assert len(found["seconds"]) == 2


def test_a_measurement_in_its_own_process(tmp_path):
    arguments = {"family": "cheetah_vel", "timing": "paper", "tasks": 1, "rollouts": 2, "horizon": 5, "repeats": 1}
    found = measure("benchmarks.simulators:metalib_and_limit", arguments, machine.cores()[-1:], tmp_path)
    assert found["steps"] == 10


def made_up_results():
    speeds = {"steps_per_second": 900.4, "limit_steps_per_second": 1000.0, "share_of_limit": 0.9004}
    row = {"body": "ant", "timing": "gymnasium", "threads": 2, **speeds, "peak_resident_mib": 512.3}
    return {
        "schema": simulation.SCHEMA,
        "quick": True,
        "machine": {"cpu": "a processor", "cores": 2},
        "versions": {"mujoco-core": "4.0.0", "envpool": None},
        "problem": {"tasks": 40, "rollouts": 20, "horizon": 20},
        "limit": [row],
        "peers": [{"name": "envpool", "body": "ant", "n_bodies": 50, "steps_per_second": 300.0}],
        "growth": [{**row, "axis": "bodies", "value": 10}],
    }


def test_the_page_is_rendered_from_the_figures(tmp_path):
    source, page = tmp_path / "x.json", tmp_path / "page.md"
    source.write_text(json.dumps(made_up_results()))
    render_simulation.main(source, page)
    text = page.read_text()
    assert "| ant | gymnasium | 900 | 1000 | 90% | 512 |" in text
    assert "| ant | EnvPool | 50 | 300 | 3.0 | 3.3 |" in text
    assert "| bodies | 10 | 900 | 1000 | 90% | 512 |" in text
    assert "takes 1.11 ms with 10 bodies" in text  # 10 (1 / 900.4 - 1 / 1000)
    assert "a processor" in text
    assert "quick run" in text


def test_a_page_without_measurements_is_refused_in_one_line(tmp_path, capsys):
    with pytest.raises(typer.Exit):
        render_simulation.main(tmp_path / "none.json", tmp_path / "p.md")
    assert "none.json is missing" in capsys.readouterr().err
    source = tmp_path / "other.json"
    source.write_text(json.dumps({**made_up_results(), "schema": "meta-step benchmark 2"}))
    with pytest.raises(typer.Exit):
        render_simulation.main(source, tmp_path / "p.md")
    assert "other.json is not a simulation benchmark 1; run" in capsys.readouterr().err
