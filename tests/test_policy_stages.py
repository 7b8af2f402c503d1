"""The stages of locomotion as plain functions, on points: what they write, and what they refuse before any work."""

import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from metalib.config import load_params
from metalib.locomotion.families import FAMILIES, family_named
from metalib.meta_training.policy_search import COUNT_NAMES
from metalib.randomness import generator
from metalib.return_files import POLICY_RATES_SCHEMA, load_returns, load_speeds
from metalib.storage import read_checked_json
from metalib.trained_policy import TrainedPolicy
from metalib.update_rules import GradientDescent
from stages import evaluate_policy, generate_goals, meta_train_policy, train_policy_baseline
from stages.policies import SearchPlan, trained_policy
from tests.test_stages import ROOT, edit, refused
from tools.quick import set_scale

FAMILY = "point_navigation"
DATA, ARTIFACTS = Path("data") / FAMILY, Path("artifacts") / FAMILY
MAML, BASELINES, SCORES = ARTIFACTS / "maml", ARTIFACTS / "baselines", ARTIFACTS / "scores"


def prepare():
    for name in ("params.yaml", "machine.yaml"):
        shutil.copy(ROOT / name, name)
    set_scale(Path("params.yaml"), "quick")
    Path("machine.yaml").write_text("workers: 1\n")


def run_all():
    generate_goals.main(FAMILY, DATA)
    meta_train_policy.main(FAMILY, DATA, MAML)
    train_policy_baseline.main(FAMILY, DATA, BASELINES)
    evaluate_policy.main(FAMILY, DATA, ARTIFACTS, SCORES)


@pytest.fixture(scope="module", name="trained")
def _trained(tmp_path_factory):
    """A folder in which every stage of the points has run once."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        prepare()
        run_all()
    return folder


@pytest.fixture(name="copy")
def _copy(trained, tmp_path, monkeypatch):
    """The same folder as a copy that a test may change."""
    shutil.copytree(trained, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")


def test_what_the_stages_write(copy):
    assert sorted(path.name for path in MAML.iterdir()) == ["curves.tsv", "policy.safetensors"]
    curves = pd.read_csv(MAML / "curves.tsv", sep="\t")
    assert list(curves) == ["env_steps", "meta_step", "return_before", "return_after", "validation_return"]
    assert list(curves["meta_step"]) == [1, 2, 3, 4, 5]
    # at most 4 tasks x 5 rollouts x 20 steps, before and after the inner step; a few arrive earlier
    assert (curves["env_steps"].diff().fillna(curves["env_steps"]).between(700, 800)).all()
    assert curves["validation_return"].notna().tolist() == [False] * 4 + [True]
    policy = TrainedPolicy.load(MAML / "policy.safetensors", FAMILY)
    assert policy.env_steps == curves["env_steps"].iloc[-1]
    assert [policy.settings[name] for name in COUNT_NAMES[:2]] == [0, 0]
    assert TrainedPolicy.load(BASELINES / "random.safetensors").env_steps == 0
    oracle = TrainedPolicy.load(BASELINES / "oracle.safetensors")
    assert oracle.view.goal_size == 2
    assert oracle.policy.observation_size == 4


def test_what_evaluation_writes(copy):
    returns, settings = load_returns(SCORES / "returns.safetensors")
    shapes = {(entry.method, entry.rollouts): tuple(entry.values.shape) for entry in returns}
    assert shapes == {
        (method, k): (1, 40, 1 if method == "oracle" else 4)
        for method in ("maml", "pretrained", "oracle", "random")
        for k in (2, 4)
    }
    assert settings["maml"]["activation"] == "tanh"
    rates = read_checked_json(SCORES / "rates.json", POLICY_RATES_SCHEMA)
    assert set(rates) == {"pretrained", "random"}
    tried = {rate: value for rate, value in rates["random"].items() if rate != "chosen"}
    assert f"{rates['random']['chosen']:g}" == max(tried, key=lambda rate: tried[rate])
    chosen = next(entry for entry in returns if entry.method == "random").rates
    assert chosen == (rates["random"]["chosen"], rates["random"]["chosen"] / 2, rates["random"]["chosen"] / 2)
    assert set(load_speeds(SCORES / "speeds.safetensors").values) == {("random", 0), ("maml", 0), ("maml", 1)}


def test_two_runs_give_the_same_bytes_at_any_number_of_workers(copy, monkeypatch):
    before = {path: path.read_bytes() for path in ARTIFACTS.rglob("*") if path.suffix in (".safetensors", ".tsv")}
    monkeypatch.setenv("METALIB_WORKERS", "2")
    shutil.rmtree(ARTIFACTS)
    run_all()
    assert [path for path, content in before.items() if path.read_bytes() != content] == []


def pretrained_plan(name, lam, log_std):
    params, family = load_params(ROOT / "params.yaml"), family_named(name)
    return SearchPlan(
        method="pretrained",
        family=family,
        shared=params.policy.model_copy(update={"lam": lam, "log_std": log_std}),
        settings=params.train_policy_baseline,
        rule=None,
        inner_steps=0,
        pretraining=0.0,
        surrogate="likelihood_ratio",
        n_steps=0,
        validation=family.draw_goals(generator(0, "validation goals"), 2),
    )


LAM = {family: 0.1 + 0.1 * index for index, family in enumerate(FAMILIES)}
LOG_STD = {family: -0.1 - 0.1 * index for index, family in enumerate(FAMILIES)}


@pytest.mark.parametrize("name", FAMILIES)
def test_lambda_and_the_first_deviation_are_those_of_the_family(name):
    plan = pretrained_plan(name, LAM, LOG_STD)
    search, phi = plan.search(0, threads=1), plan.initial_phi(0)
    assert search.adaptation.lam == LAM[name]
    size = plan.family.action_size
    assert phi[-size:].tolist() == pytest.approx([LOG_STD[name]] * size)
    left = trained_policy(plan, [search.start(phi, 0)], {})
    assert (left.lam, left.settings["lam"], left.settings["initial_log_std"]) == (LAM[name], LAM[name], LOG_STD[name])


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("key", ["lam", "kl_bound", "horizon", "rollouts"])
def test_saved_state_is_known_by_what_the_family_itself_is_told(name, key):
    plan = pretrained_plan(name, LAM, LOG_STD)
    part = "shared" if key in ("lam", "horizon") else "settings"
    settings = getattr(plan, part)
    told = getattr(settings, key)
    mine = name if name in told else plan.family.body
    for other in told:
        changed = settings.model_copy(update={key: told | {other: 7}})
        same = replace(plan, **{part: changed}).determinants() == plan.determinants()
        assert same == (other != mine)


def test_a_pretrained_start_has_an_inner_loop_of_its_own(copy):
    maml = TrainedPolicy.load(MAML / "policy.safetensors")
    assert (maml.rule, maml.settings["pretraining_steps"]) == (GradientDescent(0.1), 0)
    edit("ant_dir: 0.0, point_navigation: 0.0}", "ant_dir: 0.0, point_navigation: 0.4}")  # of 5 meta-steps
    edit("ant_dir: 0.05, point_navigation: 0.1}", "ant_dir: 0.05, point_navigation: 0.03}")
    meta_train_policy.main(FAMILY, DATA, MAML)
    maml = TrainedPolicy.load(MAML / "policy.safetensors")
    assert (maml.rule, maml.settings["pretraining_steps"]) == (GradientDescent(0.03, first_order=True), 2)
    curves = pd.read_csv(MAML / "curves.tsv", sep="\t")
    assert curves["return_after"].isna().tolist() == [True, True, False, False, False]
    # Vega draws an empty cell as 0 and leaves out NaN
    assert (MAML / "curves.tsv").read_text().splitlines()[1].split("\t")[3] == "NaN"


@pytest.mark.parametrize(("share", "steps"), [(0.05, 0), (0.95, 5)])
def test_pretraining_that_leaves_one_kind_no_meta_step_is_refused(copy, capsys, share, steps):
    edit("ant_dir: 0.0, point_navigation: 0.0}", f"ant_dir: 0.0, point_navigation: {share}}}")
    told = refused(capsys, meta_train_policy.main, FAMILY, DATA, MAML)
    assert f"meta_train_policy.pretraining.point_navigation: {share} of 5 meta-steps is {steps}, but some" in told


@pytest.mark.parametrize("call", [meta_train_policy.main, train_policy_baseline.main])
def test_an_unknown_family_is_refused(copy, capsys, call):
    error = refused(capsys, call, "cheetah_velo", DATA, MAML)
    assert "did you mean cheetah_vel" in error


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("rollouts: {cheetah: 2, ant: 2, point: 5}", "rollouts: {cheetah: 2, ant: 2, point: 0}", "rollouts.point: 0"),
        ("horizon: {cheetah: 50, ant: 50, point: 20}", "horizon: {cheetah: 50, ant: 50}", "policy.horizon"),
        ("activation: tanh", "activation: tan", "activation: 'tan' is not allowed"),
        ("inner_rate: {cheetah_vel", "inner_rate: {cheetah_fly", "cheetah_fly"),
        ("later_rates: 0.5", "later_rates: 1.5", "later_rates: 1.5"),
        ("ant_dir: 0.0, point_navigation: 0.0}", "ant_dir: 1.0, point_navigation: 0.0}", "pretraining.ant_dir: 1.0"),
        ("lam: {cheetah_vel: 0.95", "lam: {cheetah_vel: 1.5", "policy.lam.cheetah_vel: 1.5"),
        ("lam: {cheetah_vel: 0.95, ", "lam: {", "policy.lam"),
        ("log_std: {cheetah_vel", "log_std: {cheetah", "should be one of cheetah_vel"),
        ("evaluate_policy: {rollouts: [2, 4]}", "evaluate_policy: {rollouts: [0]}", "evaluate_policy.rollouts.0: 0"),
    ],
)
def test_settings_out_of_range_are_refused(copy, capsys, old, new, told):
    edit(old, new)
    assert told in refused(capsys, meta_train_policy.main, FAMILY, DATA, MAML)


def test_an_unknown_part_of_the_observation_is_refused(copy, capsys):
    edit("    point: {}", "    point: {speed: 0.1}")
    error = refused(capsys, meta_train_policy.main, FAMILY, DATA, MAML)
    assert "unknown part of the observation 'speed'; known: positions" in error


def test_goals_of_another_family_are_refused(copy, capsys):
    generate_goals.main("cheetah_vel", Path("data/other"))
    error = refused(capsys, meta_train_policy.main, FAMILY, Path("data/other"), MAML)
    assert "holds goals of cheetah_vel, but those of point_navigation are needed" in error


def test_a_policy_of_another_family_and_a_damaged_one_are_refused(copy, capsys):
    arguments = (evaluate_policy.main, "cheetah_dir", DATA, ARTIFACTS, SCORES)
    assert "holds goals of point_navigation" in refused(capsys, *arguments)
    generate_goals.main("cheetah_dir", Path("data/other"))
    arguments = (evaluate_policy.main, "cheetah_dir", Path("data/other"), ARTIFACTS, SCORES)
    assert "holds a policy for point_navigation, but one for cheetah_dir is needed" in refused(capsys, *arguments)
    path = MAML / "policy.safetensors"
    path.write_bytes(path.read_bytes()[:-40])
    assert "is damaged" in refused(capsys, evaluate_policy.main, FAMILY, DATA, ARTIFACTS, SCORES)
    assert (SCORES / "returns.safetensors").exists()
