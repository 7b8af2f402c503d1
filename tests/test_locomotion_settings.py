"""What the report on locomotion says of rates, settings and incidents, from hand-made ones."""

import pytest
import torch

from metalib.meta_training.policy_search import COUNT_NAMES
from metalib.reporting import locomotion_settings
from metalib.return_files import Returns
from metalib.storage import StorageError
from metalib.update_rules import GradientDescent, MetaSGD
from tests.made_up_locomotion import made_up_settings


def returns(method, rates, task="cheetah_vel", rollouts=20):
    return Returns(task, method, rollouts, rates, 0, torch.zeros(1, 2, len(rates) + 1))


@pytest.fixture(name="settings")
def _settings():
    return {task: made_up_settings(task) for task in ("cheetah_vel", "ant_dir")}


def test_settings_that_all_trained_policies_share_stand_once(settings):
    common = locomotion_settings.common_settings(settings)
    assert common == {
        "hidden": "64, 64",
        "activation": "tanh",
        "timing": "paper",
        "horizon": "200",
        "initial_output_scale": "0.1",
        "meta_batch": "20",
        "gamma": "0.99",
        "lam": "0.95",
        "rollouts": "20",
        "surrogate": "likelihood_ratio",
        "best_meta_step": "40, 60",
    }
    rows = locomotion_settings.setting_rows(settings)
    assert not rows["setting"].isin([*common, "versions", *COUNT_NAMES]).any()


def test_methods_with_the_same_settings_share_a_row(settings):
    rows = locomotion_settings.setting_rows(settings)
    assert list(rows.columns) == ["setting", "methods", "half-cheetah, velocity", "ant, direction"]
    assert rows[["setting", "methods"]].to_numpy().tolist() == [
        ["initial_log_std", "MAML, pretrained, random, oracle"],
        ["observation_scale", "MAML, pretrained, random, oracle"],
        ["kl_bound", "MAML, pretrained, oracle"],  # an untrained policy has none
        ["pretraining_steps", "MAML"],
        ["rule", "MAML"],
        ["meta_steps", "MAML, pretrained"],
        ["meta_steps", "oracle"],
    ]
    values = {setting: by_task for setting, _, *by_task in rows.to_numpy().tolist()}
    assert values["kl_bound"] == ["0.01", "0.02"]
    assert values["observation_scale"] == ["none", "velocities: 0.1, contact_forces: 0"]
    assert values["rule"] == ["gradient_descent (rate: 0.1, first_order: false)"] * 2


def test_lambda_stands_by_task_where_tasks_differ(settings):
    assert locomotion_settings.common_settings(settings)["lam"] == "0.95"
    settings = {task: made_up_settings(task) for task in ("ant_dir", "ant_vel")}
    rows = locomotion_settings.setting_rows(settings).to_numpy().tolist()
    assert ["lam", "MAML, pretrained, random, oracle", "0.95", "0.9"] in rows
    assert ["initial_log_std", "MAML, pretrained, random, oracle", "-1", "-0.5"] in rows


def test_an_untrained_policy_that_differs_is_shown(settings):
    settings["ant_dir"]["random"]["horizon"] = 100
    assert locomotion_settings.common_settings(settings)["horizon"] == "200"
    rows = locomotion_settings.setting_rows(settings)
    assert rows[rows["setting"] == "horizon"].to_numpy().tolist() == [["horizon", "random", "200", "100"]]


def test_notes_are_of_stored_settings_only(settings):
    assert set(locomotion_settings.setting_notes(settings)) == set(locomotion_settings.SETTING_NOTES)
    assert list(locomotion_settings.setting_notes({"ant_vel": {"maml": {"kl_bound": 0.1}}})) == ["kl_bound"]


def test_incidents_are_the_counts_that_training_keeps(settings):
    assert set(locomotion_settings.INCIDENTS) == set(COUNT_NAMES)
    incidents = locomotion_settings.incident_rows(settings)
    assert incidents.iloc[0].tolist() == ["half-cheetah, velocity", "MAML", "3", "0", "1"]
    assert list(incidents["method"]) == ["MAML", "pretrained", "oracle"] * 2  # random was not trained
    assert locomotion_settings.incident_rows({"cheetah_vel": {"random": {}, "maml": {"n_other": 3}}}).empty


def test_networks_are_told_from_the_published_one():
    theirs = {"maml": {"hidden": [100, 100], "activation": "ReLU"}}
    ours = {"maml": {"hidden": [64, 64], "activation": "tanh"}}
    found = locomotion_settings.networks({"cheetah_vel": theirs, "cheetah_dir": ours, "ant_vel": ours})
    assert [(n["name"], n["published"], len(n["tasks"])) for n in found] == [
        ("100-100 ReLU", True, 1),
        ("64-64 tanh", False, 2),
    ]
    with pytest.raises(StorageError, match="do not say 'hidden' of maml"):
        locomotion_settings.networks({"ant_vel": {"oracle": {}}})


def test_rates_used_and_tried_stand_once_for_every_k():
    rates = {"cheetah_vel": {"random": {"0.5": -80.0, "2": None, "0.1": -90.25, "chosen": 0.5}}}
    used = [returns(m, r, rollouts=k) for k in (20, 40) for m, r in (("random", (0.5, 0.25)), ("maml", (0.1,)))]
    table = locomotion_settings.rates_table(rates, [*used, returns("oracle", ())])
    assert list(table.columns[4:]) == ["rate 0.1", "rate 0.5", "rate 2"]
    assert [row[1:] for row in table.to_numpy().tolist()] == [
        ["MAML", "0.1", "given", "-", "-", "-"],
        ["random", "0.5, 0.25", "0.5", "-90.2", "-80.0", "-"],
    ]


def test_what_is_said_of_later_rates_follows_from_the_stored_ones():
    halved, same = returns("maml", (0.1, 0.05, 0.05)), returns("maml", (0.1, 0.1))
    said = locomotion_settings.later_rates
    assert said([halved, returns("random", (1.0, 0.5)), returns("oracle", ())]) == "halved from the second step on"
    assert said([same]) == "the same at every step"
    assert said([returns("maml", (0.5, 0.1, 0.1))]) == "0.2 times the first's at later steps"
    assert said([returns("maml", (0.4, 0.2, 0.1))]) == "another from step to step, as the table says"
    assert said([returns("pretrained", (1.0, 0.5)), same]) == (
        "the same at every step (MAML); halved from the second step on (pretrained)"
    )
    assert said([returns("maml", (0.1,)), returns("oracle", ())]) == ""


def test_how_maml_departs_from_the_papers_is_told_by_what_was_stored():
    first, second = GradientDescent(0.1, first_order=True).to_dict(), GradientDescent(0.1).to_dict()
    longer = {"rule": first, "meta_steps": 1500, "pretraining_steps": 600}
    plain = {"rule": second, "meta_steps": 60, "pretraining_steps": 0}
    settings = {"cheetah_vel": {"maml": plain}, "ant_vel": {"maml": longer}, "ant_dir": {"maml": longer}}
    assert locomotion_settings.departures(settings) == [
        "no inner step in the first 600 of 1,500 meta-steps, which train one policy for all goals, then "
        "first-order inner steps, without second derivatives (ant, velocity; ant, direction)"
    ]
    assert locomotion_settings.departures({"ant_vel": {"maml": plain | {"rule": first}}}) == [
        "first-order inner steps, without second derivatives (ant, velocity)"
    ]
    assert locomotion_settings.departures({"ant_vel": {"maml": {"rule": "meta_sgd"}, "oracle": longer}}) == []


def test_learned_rates_are_told_by_the_rule():
    learned, given = MetaSGD(5, 0.1).to_dict(), GradientDescent(0.1).to_dict()
    assert locomotion_settings.learns_rates({"ant_vel": {"maml": {"rule": learned}}})
    assert locomotion_settings.learns_rates({"ant_vel": {"maml": {"rule": "meta_sgd"}}})
    assert not locomotion_settings.learns_rates({"ant_vel": {"maml": {"rule": given}}, "ant_dir": {"random": {}}})
