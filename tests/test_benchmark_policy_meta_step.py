import copy
import json
import threading
from functools import partial

import pytest
import typer

from benchmarks import machine, policy_meta_step, render_policy_meta_step
from benchmarks.measure import DisagreementError
from benchmarks.policies import cases, race, split, stopwatch
from metalib.locomotion.sampler import Sampler
from metalib.meta_training.replay import AdaptedPolicies
from metalib.update_rules import GradientDescent

REST = 0.2
"""The largest share of a tiny meta-step that no part holds."""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A quick run on one processor, as it is written."""
    output = tmp_path_factory.mktemp("benchmark") / "x.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(policy_meta_step, "cores", lambda: machine.cores()[-1:])
        policy_meta_step.main(output, quick=True)
    return json.loads(output.read_text())


def test_the_figures_have_all_parts(results):
    assert list(results["cases"]) == sorted(cases.CASES)
    for found in results["cases"].values():
        assert set(found["parts"]) == {*split.PARTS, "rest"}
        assert set(found["inside"]) == set(split.INSIDE)
        assert len(found["samples"]) == found["repeats"] >= 3
        assert found["env_steps_per_second"] > 0
        assert found["peak_resident_mib"] > 0
        assert set(found["plain_loop"]) == {"adaptation", "outer_step", "deviations", "plain_threads"}
    assert results["target"]["seconds"] == results["cases"]["small"]["whole_s"]
    assert results["machine"]["cpu"]
    assert results["versions"]["torch"]


def test_the_parts_sum_to_the_whole(results):
    for found in results["cases"].values():
        for sample in found["samples"]:
            assert sum(sample["parts"].values()) == pytest.approx(sample["whole"], rel=1e-3)  # written with five digits
            assert 0 <= sample["parts"]["rest"] < REST * sample["whole"]
            assert all(seconds > 0 for seconds in sample["parts"].values())
            assert 0 < sum(sample["inside"].values()) < sample["parts"]["rollouts"]
            assert sample["env_steps"] == 2 * 3 * 2 * 20
        assert found["parts"]["rest"]["share"] < REST


def test_the_plain_loop_agrees(results):
    for found in results["cases"].values():
        for name, tolerance in race.TOLERANCES.items():
            assert 0 <= found["plain_loop"]["deviations"][name] <= tolerance


def test_another_gradient_is_refused(monkeypatch):
    monkeypatch.setattr(cases, "GradientDescent", partial(GradientDescent, first_order=True))
    with pytest.raises(DisagreementError, match="small sizes: gradient of metalib and of the plain loop differ by"):
        race.race(cases.case_named("small", quick=True), repeats=1, threads=1)


def test_what_is_not_a_number_is_refused():
    with pytest.raises(DisagreementError, match="product"):
        race.refuse_disagreement("a case", {"adapted": 0.0, "gradient": 0.0, "product": float("nan")})


def test_two_threads_share_the_rollouts_and_the_library_is_left_as_it_was():
    before = Sampler.collect, AdaptedPolicies.curvature
    (sample,) = split.split_meta_steps(cases.case_named("small", quick=True), repeats=1, threads=2)
    assert (Sampler.collect, AdaptedPolicies.curvature) == before
    assert 0 < sum(sample["inside"].values()) < sample["parts"]["rollouts"]


def nothing():
    pass


def test_a_second_counts_once(monkeypatch):
    clock = iter([0.0, 1.0, 4.0, 10.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    watch = stopwatch.Stopwatch()
    inner = watch.timed("inner", nothing)
    watch.timed("outer", inner)()
    assert watch.take() == {"inner": 3.0, "outer": 7.0}
    assert watch.take() == {}


def test_threads_are_summed(monkeypatch):
    clock = iter([0.0, 1.0, 2.0, 5.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    watch = stopwatch.Stopwatch()
    for _ in range(2):
        thread = threading.Thread(target=watch.timed("work", nothing))
        thread.start()
        thread.join()
    assert watch.take() == {"work": 4.0}


def test_figures_are_medians():
    seconds = dict.fromkeys(split.PARTS, 0.25)
    samples = [
        {"whole": whole, "parts": {**seconds, "rest": whole - 1.75}, "inside": {"policy": 0.1}, "env_steps": 100}
        for whole in (4.0, 2.0, 2.5)
    ]
    found = split.summarise_split(samples)
    assert found["whole_s"] == 2.5
    assert found["parts"]["gradient"] == {"seconds": 0.25, "share": 0.1}
    assert found["inside"]["policy"]["share"] == pytest.approx(0.04)
    assert found["accounted"] == pytest.approx(1.0)
    assert found["env_steps_per_second"] == pytest.approx(40)
    raced = {"seconds": {"outer_step": {"metalib": [1.0, 2.0, 4.0], "plain": [3.0, 4.0, 4.0]}}}
    row = race.summarise_race({**raced, "deviations": {}, "plain_threads": 2})["outer_step"]
    assert row == {"metalib_s": 2.0, "plain_s": 4.0, "times_as_fast": 2.0}


@pytest.mark.parametrize(
    ("seconds", "threads", "verdict"), [(1.5, 2, "met"), (1.51, 2, "missed"), (1.0, 1, "not decided: this machine")]
)
def test_the_target_is_judged(results, seconds, threads, verdict):
    full = copy.deepcopy(results) | {"quick": False}
    full["target"] |= {"seconds": seconds, "threads": threads}
    text = render_policy_meta_step.page(full)
    assert f"| at most 1.5 on 2 processors | {seconds:.2f} on {threads} | {verdict}" in text
    assert "quick run" not in text


def test_the_page_is_rendered_from_the_figures(results, tmp_path):
    made_up = copy.deepcopy(results)
    ant = made_up["cases"]["ant"]
    ant["parts"]["line search"] = {"seconds": 1.2345, "share": 0.4567}
    ant["plain_loop"]["outer_step"] = {"metalib_s": 1.5, "plain_s": 6.0, "times_as_fast": 4.01}
    source, page = tmp_path / "x.json", tmp_path / "page.md"
    source.write_text(json.dumps(made_up))
    render_policy_meta_step.main(source, page)
    text = page.read_text()
    assert "| 1.234 | 45.7% |\n| rest |" in text
    assert "| ant, small sizes | outer step | 1.500 | 6.000 | 4.01 |" in text
    assert "contact forces hidden, velocities times 0.1" in text
    assert "quick run" in text


def test_a_page_without_measurements_is_refused_in_one_line(tmp_path, capsys):
    with pytest.raises(typer.Exit):
        render_policy_meta_step.main(tmp_path / "none.json", tmp_path / "p.md")
    assert "none.json is missing" in capsys.readouterr().err
