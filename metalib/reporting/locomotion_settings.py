"""How the policies of locomotion were trained and adapted, as the page says it: rates, settings, what went wrong."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from metalib.reporting.locomotion import TASK_NAMES
from metalib.reporting.style import METHOD_STYLES
from metalib.return_files import METHODS, TASKS, Returns
from metalib.storage import StorageError

Settings = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""By task and method, plain data on how a method was trained."""

PAPER_NETWORK = ([100, 100], "relu")
INCIDENTS = {
    "non_finite_rollouts": "rollouts that turned non-finite",
    "singular_baseline_fits": "singular baseline fits",
    "failed_line_searches": "line searches that failed",
}
"""The settings that count what went wrong in training, and how the page names them."""
SETTING_NOTES = {
    "pretraining_steps": "the first meta-steps, which take no inner step: one policy for all goals",
    "rollouts": "K of training",
    "meta_batch": "tasks a meta-step",
    "gamma": "discount, in training and adaptation; the returns of this report are not discounted",
    "lam": "lambda of the generalised advantage estimates",
    "kl_bound": "of a trust-region step",
    "best_meta_step": "of each seed, the meta-step whose policy was best on the validation goals and is evaluated",
    "surrogate": "what a gradient step of adaptation lowers",
    "initial_log_std": "log standard deviation of actions at the start",
    "initial_output_scale": "times the last layer's weights at the start",
    "observation_scale": "factors of parts of the observation; parts not named are left as they are",
}
_OF_TRAINING = ("meta_steps", "pretraining_steps", "meta_batch", "kl_bound", "best_meta_step", *INCIDENTS)
"""Settings that say nothing of a policy that was not trained."""


def rates_table(
    rates: Mapping[str, Mapping[str, Mapping[str, float | None]]], returns: Iterable[Returns]
) -> pd.DataFrame:
    """Return the rates that evaluation used, and the mean validation returns by rate of the first step.

    Args:
        rates: by task and method, as :data:`metalib.return_files.POLICY_RATES_SCHEMA` says; methods whose rates were
            not chosen are missing.
        returns: with the rates that evaluation used; a row for each method that adapts, whatever its K.
    """
    names = {rate for by_method in rates.values() for tried in by_method.values() for rate in tried} - {"chosen"}
    used = dict.fromkeys((TASKS.index(e.task), METHODS.index(e.method), e.rates) for e in returns if e.rates)
    rows = []
    for task_index, method_index, by_step in sorted(used):
        task, method = TASKS[task_index], METHODS[method_index]
        tried = rates.get(task, {}).get(method, {})
        row = {"task": TASK_NAMES[task], "method": METHOD_STYLES[method].label}
        row["rates of the steps"] = ", ".join(f"{rate:g}" for rate in by_step)
        row["chosen"] = f"{tried['chosen']:g}" if tried else "given"
        for rate in sorted(names, key=float):
            value = tried.get(rate)
            row[f"rate {rate}"] = "-" if value is None else f"{value:.1f}"
        rows.append(row)
    return pd.DataFrame(rows)


def later_rates(returns: Iterable[Returns]) -> str:
    """Return how the rates of later steps follow from the first's, e.g. "halved from the second step on".

    Where methods differ, each is named. Empty if no method takes two steps.
    """
    found: dict[str, dict[str, None]] = {}
    for entry in sorted(returns, key=lambda entry: METHODS.index(entry.method)):
        if len(entry.rates) > 1:
            found.setdefault(_later(entry.rates), {})[METHOD_STYLES[entry.method].label] = None
    if len(found) == 1:
        return next(iter(found))
    return "; ".join(f"{change} ({', '.join(labels)})" for change, labels in found.items())


def _later(rates: Sequence[float]) -> str:
    first, second, *others = rates
    if any(other != second for other in others) or (first == 0 and second != 0):
        return "another from step to step, as the table says"
    if first == second:
        return "the same at every step"
    share = second / first
    if math.isclose(share, 0.5):
        return "halved from the second step on"
    return f"{share:g} times the first's at later steps"


def learns_rates(settings: Settings) -> bool:
    """Return whether MAML's rates were learned, one for each parameter (Meta-SGD), in any task."""
    rules = [methods.get("maml", {}).get("rule") for methods in settings.values()]
    return any((rule.get("kind") if isinstance(rule, Mapping) else rule) == "meta_sgd" for rule in rules)


def departures(settings: Settings) -> list[str]:
    """Return where MAML's inner loop in training is not the paper's: what is done instead, and on which tasks."""
    found: dict[str, list[str]] = {}
    for task, methods in settings.items():
        if way := _departure(methods.get("maml", {})):
            found.setdefault(way, []).append(TASK_NAMES[task])
    return [f"{way} ({'; '.join(tasks)})" for way, tasks in found.items()]


def _departure(maml: Mapping[str, Any]) -> str:
    rule, pretraining = maml.get("rule"), maml.get("pretraining_steps")
    ways = []
    if pretraining:
        ways.append(
            f"no inner step in the first {pretraining:,} of {maml['meta_steps']:,} meta-steps, which train one policy "
            "for all goals"
        )
    if isinstance(rule, Mapping) and rule.get("first_order"):
        ways.append("first-order inner steps, without second derivatives")
    return ", then ".join(ways)


def incident_rows(settings: Settings) -> pd.DataFrame:
    """Return what went wrong: the counts :data:`INCIDENTS` of each task and trained method; "-" if one was not kept."""
    rows = []
    for task, methods in settings.items():
        for method in (method for method in METHODS if is_trained(methods.get(method, {}))):
            counts = {name: cell(methods[method].get(key)) for key, name in INCIDENTS.items()}
            if any(value != "-" for value in counts.values()):
                rows.append({"task": TASK_NAMES[task], "method": METHOD_STYLES[method].label, **counts})
    return pd.DataFrame(rows)


def is_trained(values: Mapping[str, Any]) -> bool:
    """Return whether settings are those of a policy that took meta-steps, as far as they say."""
    return bool(values) and values.get("meta_steps") != 0


def common_settings(settings: Settings) -> dict[str, str]:
    """Return the settings that every trained method of every task has, with one value."""
    trained = [_shown(v) for methods in settings.values() for v in methods.values() if is_trained(v)]
    first = trained[0] if trained else {}
    return {name: value for name, value in first.items() if all(other.get(name) == value for other in trained)}


def setting_rows(settings: Settings) -> pd.DataFrame:
    """Return the other settings: one row for each setting and group of methods that share it, one column a task."""
    common = common_settings(settings)
    shown = {(task, m): _shown(values) for task, methods in settings.items() for m, values in methods.items()}
    rows = []
    for name in dict.fromkeys(name for values in shown.values() for name in values):
        methods_with: dict[tuple[str, ...], list[str]] = {}
        for method in METHODS:
            values = tuple(shown.get((task, method), {}).get(name, "-") for task in settings)
            if not set(values) <= {"-", common.get(name, "-")}:
                methods_with.setdefault(values, []).append(METHOD_STYLES[method].label)
        for values, labels in methods_with.items():
            by_task = dict(zip((TASK_NAMES[task] for task in settings), values, strict=True))
            rows.append({"setting": name, "methods": ", ".join(labels), **by_task})
    return pd.DataFrame(rows)


def setting_notes(settings: Settings) -> dict[str, str]:
    """Return what the less obvious of the stored settings mean, by name."""
    names = {name for methods in settings.values() for values in methods.values() for name in values}
    return {name: note for name, note in SETTING_NOTES.items() if name in names}


def _shown(values: Mapping[str, Any]) -> dict[str, str]:
    """Return settings as text, without versions and counts, which stand elsewhere."""
    hidden = {"versions", *INCIDENTS, *(() if is_trained(values) else _OF_TRAINING)}
    return {name: cell(value) for name, value in values.items() if name not in hidden}


def cell(value: Any) -> str:
    """Return plain data as text that fits a table cell; an update rule as its kind with its settings in brackets."""
    if value is None or value == []:
        return "-"
    if isinstance(value, Mapping):
        parts = ", ".join(f"{key}: {cell(part)}" for key, part in value.items() if key != "kind")
        return f"{value['kind']} ({parts})" if "kind" in value else parts or "none"
    if isinstance(value, list | tuple):
        return ", ".join(cell(part) for part in value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return f"{value:,}" if isinstance(value, int) and value >= 10_000 else str(value)


def networks(settings: Settings) -> list[dict[str, Any]]:
    """Return the policy networks of MAML: ``name``, ``tasks``, and whether it is the ``published`` one.

    Raises:
        StorageError: a task's settings do not say ``hidden`` and ``activation``.
    """
    found: dict[str, dict[str, Any]] = {}
    for task in settings:
        hidden, activation = (stated(settings, task, name) for name in ("hidden", "activation"))
        name = f"{'-'.join(map(str, hidden))} {activation}"
        published = (list(hidden), activation.lower()) == PAPER_NETWORK
        entry = found.setdefault(name, {"name": name, "tasks": [], "published": published})
        entry["tasks"].append(TASK_NAMES[task])
    return list(found.values())


def stated(settings: Settings, task: str, name: str) -> Any:
    """Return a setting of MAML on a task.

    Raises:
        StorageError: it is not stated.
    """
    values = settings[task].get("maml", {})
    if name not in values:
        raise StorageError(f"the stored returns of {task} do not say {name!r} of maml; run `dvc repro`")
    return values[name]
