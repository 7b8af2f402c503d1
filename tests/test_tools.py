import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
import typer
from ruamel.yaml import YAML

from metalib.config import load_params
from metalib.locomotion.families import family_named
from metalib.locomotion.policy import GaussianPolicy
from metalib.locomotion.view import ObservationView
from metalib.randomness import generator
from metalib.return_files import Returns
from metalib.update_rules import GradientDescent, ScheduledGradientDescent
from tests.point_search import trained
from tools import lstm_variants, maml_optimisers, more_goals, policy_settings, preflight
from tools.clone import clone_work_tree
from tools.paper import copy_lock, paper_meta_steps, readme, shorten, without_pretraining
from tools.parallel import run_in_order, stage_graph
from tools.quick import set_scale
from tools.results import RUN, put_in_place
from tools.trial import from_root

ROOT = Path(__file__).resolve().parent.parent


def git(folder, *arguments):
    identity = ["-c", "user.name=x", "-c", "user.email=x@localhost"]
    return subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture(name="repository")
def _repository(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    for name, text in {"kept": "old", "gone": "", ".gitignore": "ignored\n", "ignored": "x"}.items():
        (root / name).write_text(text)
    git(root, "init", "--quiet")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "-m", "start")
    return root


def test_a_clone_holds_the_work_tree_as_it_stands(repository, tmp_path):
    (repository / "kept").write_text("edited")
    (repository / "new").write_text("")
    (repository / "gone").unlink()
    clone_work_tree(repository, tmp_path / "clone")
    files = {p.name for p in (tmp_path / "clone").iterdir()} - {".git"}
    assert files == {"kept", "new", ".gitignore"}
    assert (tmp_path / "clone" / "kept").read_text() == "edited"
    assert git(tmp_path / "clone", "status", "--porcelain") == ""


def test_set_scale_changes_one_word(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text((ROOT / "params.yaml").read_text())
    set_scale(path, "quick")
    old, new = (ROOT / "params.yaml").read_text().splitlines(), path.read_text().splitlines()
    changed = [(a, b) for a, b in zip(old, new, strict=True) if a != b]
    assert len(changed) == 1
    assert changed[0][1].startswith("scale: quick")
    path.write_text("seed: 1\n")
    with pytest.raises(ValueError, match="no line 'scale"):
        set_scale(path, "quick")


def test_preflight_finds_no_fault_that_stops_this_project():
    assert [finding for finding in preflight.findings(ROOT) if finding.fatal] == []


def test_preflight_names_what_is_missing(tmp_path, monkeypatch):
    for name in ("params.yaml", "machine.yaml"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setattr("shutil.which", lambda name: "git" if name == "git" else None)
    monkeypatch.setattr("ctypes.util.find_library", lambda name: None)
    lines = [finding.line for finding in preflight.findings(tmp_path)]
    assert any("no git repository" in line and "git init" in line for line in lines)
    assert any("no C++ compiler" in line and "apt-get install g++" in line for line in lines)
    assert any("not in the project's .venv" in line for line in lines)
    assert sys.platform != "linux" or any("no EGL or OSMesa" in line for line in lines)
    (tmp_path / "params.yaml").write_text("scale: 3\n")
    assert any("scales: must hold" in f.line and f.fatal for f in preflight.findings(tmp_path))
    monkeypatch.setenv("METALIB_DEVICE", "cuda")
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert any("torch sees no CUDA device" in f.line and f.fatal for f in preflight.findings(tmp_path))


DIAMOND = {"report": {"left", "right"}, "left": {"data"}, "right": {"data"}, "data": set()}


def test_stages_side_by_side_wait_for_what_they_need():
    both = threading.Barrier(2, timeout=10)
    done: list[str] = []
    at_once: list[str] = []

    def run(stages):
        (stage,) = stages
        if stage in ("left", "right"):
            both.wait()  # passes only if the two run at the same time
            at_once.append(stage)
        assert DIAMOND[stage] <= set(done)
        done.append(stage)
        return True

    assert run_in_order(DIAMOND, run, slots=2)
    assert done[0] == "data"
    assert done[-1] == "report"
    assert set(at_once) == {"left", "right"}


@pytest.mark.parametrize("slots", [1, 2])
def test_nothing_starts_after_a_stage_failed(slots):
    started = []

    def run(stages):
        started.extend(stages)
        return "data" not in stages

    assert not run_in_order(DIAMOND, run, slots)
    assert started == ["data"]


def test_stages_with_the_longest_chain_behind_them_come_first():
    started: list[str] = []
    graph = {"short": set(), "long": set(), "next": {"long"}, "last": {"next", "short"}}

    def run(stages):
        started.extend(stages)
        return True

    assert run_in_order(graph, run, slots=1)
    assert started == ["long", "short", "next", "last"]


@pytest.mark.parametrize(("slots", "calls"), [(1, 2), (2, 4), (3, 6)])
def test_stages_that_are_ready_are_shared_among_the_slots(slots, calls):
    graph = {**{name: set() for name in "abcde"}, **{name.upper(): {*"abcde"} for name in "abcde"}}
    handed: list[list[str]] = []

    def run(stages):
        handed.append(list(stages))
        return True

    assert run_in_order(graph, run, slots)
    assert len(handed) == calls
    assert sorted(stage for stages in handed for stage in stages) == sorted(graph)


def test_the_graph_is_that_of_dvc():
    graph = stage_graph(ROOT)
    assert graph["evaluate@sinusoid-maml"] == {"generate_tasks@sinusoid", "meta_train@sinusoid-maml"}
    assert all(needed <= graph.keys() for needed in graph.values())


def test_the_lock_file_of_some_tasks_holds_their_stages(tmp_path):
    copy_lock(ROOT / "dvc.lock", tmp_path / "dvc.lock", ["ant_dir"])
    copied, whole = (YAML(typ="safe").load(folder / "dvc.lock") for folder in (tmp_path, ROOT))
    stages = ("generate_goals", "meta_train_policy", "train_policy_baseline", "evaluate_policy")
    assert set(copied["stages"]) == {f"{stage}@ant_dir" for stage in stages}
    assert copied["stages"]["meta_train_policy@ant_dir"] == whole["stages"]["meta_train_policy@ant_dir"]


def test_a_run_at_paper_scale_states_cost_machine_and_command():
    machine = {"cores": 2, "cpu": "a processor", "memory_gib": 8.0, "python": "3.11.2"}
    run = {
        "command": "make paper TASKS='ant_dir'",
        "stages": {"meta_train_policy@ant_dir": {"seconds": 5400.0, "peak_memory_mb": 1200}},
        "env_steps": {"ant_dir": {"maml": 368_000_000}},
        "machine": machine,
        "versions": {"torch": "2.13.0"},
    }
    page = readme(run)
    assert "    make paper TASKS='ant_dir'\n" in page
    assert "| meta_train_policy@ant_dir | 1.50 | 1,200 |" in page
    assert "| ant_dir | maml | 368,000,000 |" in page
    assert "2 cores of a processor with 8.0 GiB of memory; Python 3.11.2,\ntorch 2.13.0." in page


def test_a_shorter_run_says_so_and_changes_nothing_else(tmp_path):
    params = tmp_path / "params.yaml"
    params.write_text((ROOT / "params.yaml").read_text())
    set_scale(params, "paper")
    before = load_params(params)
    assert paper_meta_steps(params, ["ant_vel"]) == {"ant_vel": before.meta_train_policy.meta_steps["ant_vel"]}
    shorten(params, ["ant_vel"], 7)
    after = load_params(params)
    for section in ("meta_train_policy", "train_policy_baseline"):
        steps = {**getattr(before, section).meta_steps, "ant_vel": 7}
        assert getattr(after, section) == getattr(before, section).model_copy(update={"meta_steps": steps})
    assert after.evaluate_policy == before.evaluate_policy
    run = {"command": "", "stages": {}, "env_steps": {}, "versions": {}, "shortened": [7, {"ant_vel": 1500}]}
    machine = {"cores": 2, "cpu": "a processor", "memory_gib": 8.0, "python": "3.11.2"}
    page = readme({**run, "machine": machine})
    assert "Shorter than the project's paper scale: 7 meta-steps instead of 1,500 (ant_vel).\n" in page


def test_a_run_that_is_not_shorter_is_refused_before_any_work(tmp_path):
    command = [sys.executable, "-m", "tools.paper", "ant_vel", "--meta-steps", "5000", "--folder", tmp_path / "copy"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "5,000 makes no run shorter" in done.stderr
    assert not (tmp_path / "copy").exists()


def test_a_run_too_short_for_its_pretraining_is_refused_before_any_work(tmp_path):
    command = [sys.executable, "-m", "tools.paper", "cheetah_dir", "ant_dir", "--meta-steps", "50"]
    done = subprocess.run(
        [*command, "--folder", tmp_path / "copy"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    told = " ".join(done.stderr.replace("│", " ").split())
    assert "50 leaves no meta-step to the pretraining of ant_dir; name more" in told
    assert not (tmp_path / "copy").exists()


def test_pretraining_needs_a_meta_step_only_where_there_is_some(tmp_path):
    (tmp_path / "params.yaml").write_text(
        "scales: {paper: {meta_train_policy: {pretraining: {ant_dir: 0.01, ant_vel: 0.4, cheetah_dir: 0.0}}}}"
    )
    tasks = ("ant_dir", "ant_vel", "cheetah_dir")
    assert without_pretraining(tmp_path / "params.yaml", tasks, 50) == ["ant_dir"]
    assert without_pretraining(tmp_path / "params.yaml", tasks, 51) == []
    assert without_pretraining(tmp_path / "params.yaml", tasks, 1) == ["ant_dir", "ant_vel"]


def test_an_unknown_task_at_paper_scale_is_refused_before_any_work(tmp_path):
    command = [sys.executable, "-m", "tools.paper", "cheetah", "--folder", tmp_path / "copy"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "there is no task 'cheetah'" in done.stderr
    assert not (tmp_path / "copy").exists()


def test_a_copy_made_again_keeps_what_git_ignores_and_drops_what_is_gone(repository, tmp_path):
    clone_work_tree(repository, tmp_path / "clone")
    (tmp_path / "clone" / "ignored").write_text("computed")
    (repository / "gone").unlink()
    clone_work_tree(repository, tmp_path / "clone")
    assert (tmp_path / "clone" / "ignored").read_text() == "computed"
    assert not (tmp_path / "clone" / "gone").exists()


@pytest.mark.parametrize("first_order", [True, False])
def test_the_variants_of_the_lstm_meta_learner_differ_in_one_setting(tmp_path, first_order):
    settings = lstm_variants.write_settings(tmp_path / "params.yaml", first_order, 7, 10, 0.02, "none", 3)
    written, standard = load_params(tmp_path / "params.yaml"), load_params(ROOT / "params.yaml")
    changes = {"first_order": first_order, "shots": (10,), "meta_steps": 7, "learning_rate": 0.02, "decay": "none"}
    changes["seeds"] = (3,)
    assert written.meta_train_lstm == standard.meta_train_lstm.model_copy(update=changes)
    assert written.network == standard.network
    assert settings["inner_steps"] == standard.meta_train_lstm.inner_steps


def test_a_variant_is_judged_after_its_updates_on_the_most_query_points():
    rows = [(step, points, 10.0 * step + points) for step in (0, 1, 2, 3) for points in (10, 600)]
    table = pd.DataFrame(rows, columns=["gradient_step", "query_points", "mse_mean"])
    table = table.assign(mse_median=0.0, ci95_low=0.0, ci95_high=0.0)
    assert lstm_variants.row(table, inner_steps=2)["mse_mean"] == 620.0


@pytest.mark.parametrize("optimiser", maml_optimisers.OPTIMISERS)
def test_the_optimisers_of_maml_differ_in_nothing_else(tmp_path, optimiser):
    seeds = maml_optimisers.write_settings(tmp_path / "params.yaml", optimiser, 10, 700)
    written, standard = load_params(tmp_path / "params.yaml"), load_params(ROOT / "params.yaml")
    changes = {**optimiser, "shots": (10,), "meta_steps": 700}
    assert written.meta_train == standard.meta_train.model_copy(update=changes)
    assert seeds == list(standard.meta_train.seeds)


def test_the_project_trains_with_the_optimiser_that_was_chosen(tmp_path):
    """The committed comparison, on validation tasks, names the settings of the committed params.yaml.

    Whoever tries other settings, or compares again, has files of their own in the work tree.
    """
    for name in ("params.yaml", "results/maml-optimisers/table.csv"):
        (tmp_path / Path(name).name).write_text(git(ROOT, "show", f"HEAD:{name}"))
    best = maml_optimisers.best(maml_optimisers.compact(pd.read_csv(tmp_path / "table.csv"), "validation"))
    settings = load_params(tmp_path / "params.yaml").meta_train
    assert best == {name: str(getattr(settings, name)) for name in maml_optimisers.OPTIMISERS[0]}


def test_optimisers_are_compared_by_the_average_over_k_and_steps():
    first, second = maml_optimisers.OPTIMISERS[:2]
    rows = [
        {**optimiser, "tasks": tasks, "test_shots": k, "gradient_step": step, "mse_mean": error, "n_diverged": step}
        for optimiser, error in ((first, 2.0), (second, 1.0))
        for tasks, error in (("validation", error), ("test", 9.0))
        for k in (5, 10)
        for step in range(11)
    ]
    rows[1]["mse_mean"] = 8.0  # of the first optimiser at K = 5 after 1 step
    shown = maml_optimisers.compact(pd.DataFrame(rows), "validation")
    assert shown["average"].tolist() == [3.0, 1.0]
    assert shown["K 5, step 1"].tolist() == [8.0, 1.0]
    assert shown["diverged"].tolist() == [10, 10]
    assert maml_optimisers.best(shown) == {name: str(value) for name, value in second.items()}


def test_returns_on_frozen_and_drawn_goals_stand_side_by_side():
    def returns(n, value):
        return [Returns("cheetah_vel", m, 20, (), 7, torch.full((1, n, 1), value)) for m in more_goals.POLICIES]

    sets = {"frozen": (torch.full((2, 1), 1.5), returns(2, -9.0)), "drawn": (torch.ones(3, 1), returns(3, -4.0))}
    table = more_goals.side_by_side(sets)
    assert table.groupby("goals")["return_mean"].first().to_dict() == {"drawn": -4.0, "frozen": -9.0}
    assert table.groupby("goals")["goal_mean"].first().to_dict() == {"drawn": 1.0, "frozen": 1.5}
    kept = pd.DataFrame({"wanted": [0.5, 1.5], "after_0": [1.0, 1.0], "after_1": [0.625, 1.25], "after_2": [0.5, 1.5]})
    page = more_goals.page(table, kept, "cheetah_vel", 20, "x")
    assert "| maml | 0 | 2 frozen | 1.500 | -9.000 | [-9.0, -9.0] | 7 |" in page
    assert "| wanted | before | after one step | after 2 steps |" in page
    assert "| 0.50 | 1.00 | 0.62 | 0.50 |" in page


def test_speeds_stand_beside_the_wanted_ones_in_bands_of_as_many_goals(monkeypatch):
    family, policy = family_named("cheetah_vel"), GaussianPolicy((20, 6))
    phi = policy.initial_theta(generator(0, "theta"), log_std=-1.0).expand(2, -1)
    maml = replace(
        trained(rule=GradientDescent(0.1), phi=phi), family=family, policy=policy, view=ObservationView.of(family, {})
    )
    params = load_params(ROOT / "params.yaml")
    goals = torch.linspace(2, 0.125, 2 * more_goals.BANDS)[:, None]
    recorded = []

    def record(family, policy, thetas, goals, horizon, numbers, timing, view):
        """Every rollout keeps its goal and half the number of the step, in its second half; the fastest one fell."""
        recorded.append((thetas, goals))
        velocity = torch.full((len(goals), horizon + 1), 9.0)
        velocity[:, horizon // 2 :] = goals + (len(recorded) - 1) / 2
        lengths = torch.full((len(goals), 1), horizon)
        lengths[-1] = horizon // 2 - 1
        return SimpleNamespace(velocity=velocity, trajectories=SimpleNamespace(lengths=lengths))

    monkeypatch.setattr(more_goals, "record", record)
    found = more_goals.speeds(params, maml, goals, rollouts=2)
    middles = [0.1875 + 0.25 * band for band in range(more_goals.BANDS)]
    assert found["wanted"].tolist() == pytest.approx(middles)
    assert found.columns.tolist() == ["wanted", *(f"after_{step}" for step in range(4))]
    for step in range(4):
        without_the_fallen = [*middles[:-1], 1.875]
        assert found[f"after_{step}"].tolist() == pytest.approx([speed + step / 2 for speed in without_the_fallen])
    rule = ScheduledGradientDescent((0.1, 0.1 * params.evaluate_policy.later_rates))
    expected = maml.adaptation(rule, 2).iterates(
        phi[0], goals.flip(0), 3, lambda step: generator(0, f"speeds, rollouts to adapt on, iterate {step}")
    )
    for (thetas, wanted), iterate in zip(recorded, expected, strict=True):
        assert torch.equal(wanted, goals.flip(0))
        assert torch.equal(thetas, iterate.thetas)
    assert not torch.equal(recorded[0][0], recorded[1][0])


def test_fewer_goals_than_bands_are_refused():
    command = [sys.executable, "-m", "tools.more_goals", "cheetah_vel", "--goals", str(more_goals.BANDS - 1)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--goals" in done.stderr


def test_goals_for_policies_of_another_project_do_not_replace_those_of_this(tmp_path):
    with pytest.raises(typer.BadParameter, match="name the folder"):
        more_goals.main("cheetah_vel", project=tmp_path)


def test_a_command_names_folders_as_seen_from_the_root(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    folder = Path("results/more-goals/other")
    assert from_root(folder) == from_root(ROOT / folder) == folder
    assert from_root(tmp_path) == tmp_path


def test_values_of_a_setting_differ_in_nothing_else(tmp_path):
    setting, path = "policy.observation_scale.cheetah.velocities", tmp_path / "params.yaml"
    found = {}
    for value in ("0.5", "0.2"):
        policy_settings.write_settings(path, "cheetah_dir", setting, value, 70, 2)
        found[value] = load_params(path)
        assert found[value].policy.observation_scale["cheetah"] == {"velocities": float(value)}
        assert found[value].meta_train_policy.meta_steps["cheetah_dir"] == 70
        assert found[value].meta_train_policy.seeds == (0, 1)
    same = found["0.2"].policy.model_copy(update={"observation_scale": found["0.5"].policy.observation_scale})
    assert found["0.2"].model_copy(update={"policy": same}) == found["0.5"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["walk", "policy.gamma", "0.9", "0.8"], "no task 'walk'"),
        (["ant_dir", "policy.gamma", "0.9"], "needs two values"),
        (["ant_dir", "polisy.gamma", "0.9", "0.8"], "no section 'polisy'"),
        (["ant_dir", "policy.gama", "0.9", "0.8"], "policy.gama"),
        (["ant_dir", "policy.gamma", "0.9", "2"], "policy.gamma"),
        (["ant_dir", "policy.gamma", "0.9", "[0.8"], "expected ',' or"),
        (["ant_dir", "policy.log_std.ant_vel", "-0.5", "-1.0"], "make no difference"),
        (["ant_dir", "scales.default.meta_train_policy.meta_steps.ant_dir", "70", "80"], "make no difference"),
    ],
)
def test_a_wrong_setting_is_refused_before_any_training(tmp_path, monkeypatch, arguments, told):
    monkeypatch.setattr(policy_settings, "FOLDER", tmp_path / "runs")
    monkeypatch.setattr(policy_settings, "run_stage", lambda *_: pytest.fail("trained"))
    task, setting, *values = arguments
    with pytest.raises(typer.BadParameter, match=told):
        policy_settings.main(task, setting, values, meta_steps=60, seeds=1, output=tmp_path / "found")


def test_an_outcome_is_the_end_of_training_and_the_best_look_at_validation_goals():
    curves = pd.DataFrame(
        {
            "env_steps": range(100, 2100, 100),
            "return_before": [0.0] * 10 + [1.0] * 10,
            "return_after": [0.0] * 10 + [5.0] * 10,
            "validation_return": [float("nan")] * 9 + [8.0] + [float("nan")] * 9 + [7.0],
        }
    )
    found = policy_settings.outcome(curves)
    assert found == {"before": 1.0, "adapted": 5.0, "validation": 7.0, "best validation": 8.0, "env_steps": 2000}


def test_results_replace_those_of_an_earlier_run_and_nothing_else(tmp_path):
    def found(text):
        (tmp_path / "new").mkdir()
        (tmp_path / "new" / RUN).write_text(text)
        return tmp_path / "new"

    put_in_place(found("first"), tmp_path / "results")
    put_in_place(found("second"), tmp_path / "results")
    assert (tmp_path / "results" / RUN).read_text() == "second"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").write_text("dear to me")
    with pytest.raises(typer.BadParameter, match=r"holds no run\.json"):
        put_in_place(found("third"), tmp_path / "mine")
    assert (tmp_path / "mine" / "notes").read_text() == "dear to me"
