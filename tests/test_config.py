import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from metalib.config import SCALES, ConfigError, load_machine, load_params

PARAMS = Path(__file__).resolve().parent.parent / "params.yaml"
TEXT = PARAMS.read_text()


def load(tmp_path, text):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    return load_params(path)


def changed(old, new):
    assert TEXT.count(old) >= 1, f"{old!r} no longer stands in params.yaml"
    return TEXT.replace(old, new, 1)


@pytest.mark.parametrize("scale", SCALES)
def test_every_scale_is_valid(tmp_path, scale):
    assert load(tmp_path, changed("scale: default", f"scale: {scale}")).scale == scale


def test_scales_differ_in_counts_only_and_share_the_rest(tmp_path):
    quick, paper = (load(tmp_path, changed("scale: default", f"scale: {s}")) for s in ("quick", "paper"))
    assert quick.meta_train.meta_steps < paper.meta_train.meta_steps == 70_000
    assert quick.meta_train.inner_rate == paper.meta_train.inner_rate == 0.01


def test_settings_are_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        load_params(PARAMS).meta_train.inner_rate = 1.0


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "inner_rate: 0.01",
            "inner_rat: 0.01",
            r"meta_train\.inner_rat: unknown key; .*did you mean inner_rate\?",
        ),
        ("inner_rate: 0.01", "", r"meta_train\.inner_rate: is missing"),
        (
            "inner_rate: 0.01",
            "inner_rate: -1",
            r"meta_train\.inner_rate: -1 is not allowed: .*greater than 0",
        ),
        ("inner_rate: 0.01", "inner_rate: .nan", r"meta_train\.inner_rate: nan is not allowed"),
        ("inner_rate: 0.01", "inner_rate: .inf", r"meta_train\.inner_rate: inf is not allowed"),
        (
            "inner_rate: 0.01",
            "inner_rate: '0.01'",
            r"meta_train\.inner_rate: '0.01' is not allowed: should be a number",
        ),
        (
            "inner_rate: 0.01",
            "inner_rate: true",
            r"meta_train\.inner_rate: True is not allowed: should be a number",
        ),
        (
            "inner_steps: 1",
            "inner_steps: 0",
            r"meta_train\.inner_steps: 0 is not allowed: .*greater than or equal to 1",
        ),
        (
            "inner_steps: 1",
            "inner_steps: 1.5",
            r"meta_train\.inner_steps: 1.5 is not allowed: should be a whole number",
        ),
        (
            "first_order: false",
            "first_order: 1",
            r"meta_train\.first_order: 1 is not allowed: should be true or false",
        ),
        ("hidden: [40, 40]", "hidden: [40, 0]", r"network\.hidden\.1: 0 is not allowed"),
        ("hidden: [40, 40]", "hidden: 40", r"network\.hidden: 40 is not allowed: should be a list"),
        (
            "shots: [5, 10, 20]",
            "shots: [5, 5]",
            r"meta_train\.shots: \[5, 5\] is not allowed: the values must differ",
        ),
        ("shots: [5, 10, 20]", "shots: []", r"meta_train\.shots: \[\] is not allowed"),
        (
            "amplitude: [0.1, 5.0]",
            "amplitude: [5, 0.1]",
            r"generate_tasks\.amplitude: .*first number must be below",
        ),
        (
            "support_points: 20",
            "support_points: 10",
            r"evaluate\.shots: 20 is more than generate_tasks\.support_points allows, 10",
        ),
        ("scale: default", "scale: defalt", r"scale: 'defalt' is not allowed; .*did you mean default\?"),
        ("report:\n", "reprot:\n", r"reprot: unknown key; .*did you mean report\?"),
        (
            "  first_order: false",
            "  first_order: false\n  meta_steps: 5",
            r"meta_train\.meta_steps: stands twice",
        ),
        ("  paper:", "  papier:", r"scales: must hold exactly the sections quick, default, paper"),
        # a mistake in a scale that is not chosen is found as well
        ("{steps: 1000,", "{steps: -1,", r"scales\.quick\.train_baseline\.steps: -1 is not allowed"),
        ("scale: default", "scale: [default", "is not valid YAML"),
    ],
)
def test_mistakes_are_refused_in_one_line_that_says_where_and_what(tmp_path, old, new, message):
    with pytest.raises(ConfigError, match=message) as error:
        load(tmp_path, changed(old, new))
    assert "\n" not in str(error.value)


def test_test_shots_must_include_a_trained_k(tmp_path):
    with pytest.raises(ConfigError, match="shares no K"):
        load(tmp_path, re.sub(r"(?m)^  shots: .*# K at test", "  shots: [7]", TEXT))


# The time of an example is the machine's, and a busy one is no failure.
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda x: st.lists(x, max_size=3)))
def test_any_value_is_either_accepted_as_it_is_or_refused_with_its_key(tmp_path_factory, value):
    import json

    folder = tmp_path_factory.mktemp("params")
    try:
        params = load(folder, changed("inner_rate: 0.01", f"inner_rate: {json.dumps(value)}"))
    except ConfigError as error:
        assert "meta_train.inner_rate" in str(error) or "YAML" in str(error)
    else:
        assert params.meta_train.inner_rate == value
        assert value > 0


def test_a_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="is not valid YAML"):
        load_params(path)


def test_missing_file(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_params(tmp_path / "none.yaml")


def test_machine_settings_come_from_file_and_environment(tmp_path, monkeypatch):
    path = tmp_path / "machine.yaml"
    assert load_machine(path).workers == "auto"
    path.write_text("workers: 3\n")
    assert load_machine(path).workers == 3
    monkeypatch.setenv("METALIB_WORKERS", "5")
    monkeypatch.setenv("METALIB_DEVICE", "cpu")
    assert load_machine(path).workers == 5
    assert load_machine(path).device == "cpu"
    monkeypatch.setenv("METALIB_WORKERS", "0")
    with pytest.raises(ConfigError, match="workers: 0 is not allowed: should be auto or a number from 1 to 1024"):
        load_machine(path)
    monkeypatch.setenv("METALIB_WORKERS", "5")
    monkeypatch.setenv("METALIB_DEVICE", "tpu")
    with pytest.raises(ConfigError, match="device: 'tpu' is not allowed"):
        load_machine(path)


def test_machine_settings_are_read_as_yaml_wherever_they_stand(tmp_path, monkeypatch):
    path = tmp_path / "machine.yaml"
    path.write_text("# nothing is set\n")
    assert load_machine(path) == load_machine(tmp_path / "none.yaml")
    monkeypatch.setenv("METALIB_CHECKPOINT_SECONDS", "0.5")
    assert load_machine(path).checkpoint_seconds == 0.5
    monkeypatch.setenv("METALIB_WORKERS", "\u00b2")
    with pytest.raises(ConfigError, match="workers: '\u00b2' is not allowed: should be auto or a number from 1"):
        load_machine(path)
    monkeypatch.setenv("METALIB_WORKERS", "[1")
    with pytest.raises(ConfigError, match="METALIB_WORKERS is not valid YAML"):
        load_machine(path)
    path.write_text("- 3\n")
    with pytest.raises(ConfigError, match="must hold named sections, got list"):
        load_machine(path)


def test_an_inner_batch_larger_than_the_smallest_k_is_refused(tmp_path):
    text = changed("inner_batch: all      # support examples an update", "inner_batch: 6  # support examples an update")
    with pytest.raises(
        ConfigError, match=r"meta_train_lstm\.inner_batch: 6 is more than the smallest support holds, 5"
    ):
        load(tmp_path, text)
    with pytest.raises(
        ConfigError, match=r"meta_train_classifier_lstm\.inner_batch: 6 is more than .* holds, 5 \(scale"
    ):
        load(tmp_path, changed("  inner_batch: all\n", "  inner_batch: 6\n"))


def test_an_ablation_of_an_untrained_k_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"ablation\.shots: 7 is not in meta_train\.shots = \[5, 10, 20\]; name a K"):
        load(tmp_path, changed("shots: 10             # K", "shots: 7"))


def test_a_shot_without_inner_steps_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"meta_train_classifier_lstm\.inner_steps: lacks 5-shot"):
        load(tmp_path, changed("{1-shot: 5, 5-shot: 5}, meta_batch: 8", "{1-shot: 5}, meta_batch: 8"))


def test_a_way_is_named_as_such(tmp_path):
    with pytest.raises(ConfigError, match="meta_train_classifier"):
        load(tmp_path, changed("{5-way: 0.4, 20-way: 0.1}", "{five: 0.4}"))
