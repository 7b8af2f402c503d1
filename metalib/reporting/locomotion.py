"""What the report on locomotion says: every table and figure of its text, from the long table and stored settings."""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from metalib.reporting.style import METHOD_STYLES
from metalib.return_files import METHODS, Returns
from metalib.storage import StorageError

Settings = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""By task and method, plain data on how a method was trained."""

TASK_NAMES = {
    "cheetah_vel": "half-cheetah, velocity",
    "cheetah_dir": "half-cheetah, direction",
    "ant_vel": "ant, velocity",
    "ant_dir": "ant, direction",
    "point_navigation": "point navigation",
}
DIRECTION_TASKS = ("cheetah_dir", "ant_dir")
PAPER_NETWORK = ([100, 100], "relu")
INCIDENTS = {
    "n_broken": "rollouts that turned non-finite",
    "n_line_search_failures": "line searches that failed",
    "n_singular_fits": "singular baseline fits",
}
"""Settings that begin with ``n_`` count what went wrong; these have a name of their own."""


def headline(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return for each task what one gradient step does to MAML and to the pretrained policy, and the oracle's return.

    Methods or steps that were not run are missing (None).
    """
    rows = []
    for task in table["task"].unique():
        here = table[table["task"] == task].set_index(["method", "gradient_step"])
        found = {
            f"{method}_{step}": here.loc[(method, step)].to_dict() if (method, step) in here.index else None
            for method, step in (("maml", 0), ("maml", 1), ("pretrained", 1), ("oracle", 0))
        }
        rows.append({"task": task, "name": TASK_NAMES[task], **found})
    return rows


def maml_moves(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return one sentence on what a gradient step does to MAML in every task, from rows of :func:`headline`."""
    moves = [
        f"{row['maml_0']['return_mean']:.0f} to {row['maml_1']['return_mean']:.0f} ({row['name']})"
        for row in rows
        if row["maml_0"] and row["maml_1"]
    ]
    return f"One gradient step moves MAML's mean return from {', from '.join(moves)}." if moves else ""


def gain_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Return for each task and method the returns before and after adaptation, and the paired gains."""
    last = int(table["gradient_step"].max())
    rows = []
    for task, method in table[["task", "method"]].drop_duplicates().itertuples(index=False, name=None):
        by_step = table[(table["task"] == task) & (table["method"] == method)].set_index("gradient_step")
        row: dict[str, Any] = {"task": TASK_NAMES[task], "method": METHOD_STYLES[method].label}
        row["K"] = str(by_step["rollouts"][0]) if len(by_step) > 1 else "-"
        row["before"] = _interval(by_step.loc[0], "return_mean", "ci95")
        for step in dict.fromkeys((1, last)):
            taken = step in by_step.index
            steps = f"{step} step{'s' * (step != 1)}"
            row[f"after {steps}"] = f"{by_step['return_mean'][step]:.1f}" if taken else "-"
            row[f"gain of {steps}"] = _interval(by_step.loc[step], "gain_mean", "gain_ci95") if taken else "-"
        rows.append(row)
    return pd.DataFrame(rows)


def _interval(row: Any, mean: str, ends: str) -> str:
    return f"{row[mean]:.1f} [{row[f'{ends}_low']:.1f}, {row[f'{ends}_high']:.1f}]"


def published_rows(comparison: pd.DataFrame, task: str) -> pd.DataFrame:
    """Return a task's rows of :func:`metalib.reporting.returns.beside_published` as the page shows them."""
    rows = comparison[comparison["task"] == task]
    return pd.DataFrame(
        [
            {
                "method": METHOD_STYLES[row["method"]].label,
                "steps": row["gradient_step"],
                "K, paper": row["published_rollouts"],
                "K, here": row["rollouts"],
                "paper": f"{row['published']:.1f} ± {row['published_halfwidth']:.1f}",
                "here": _interval(row, "return_mean", "ci95"),
                "here - paper": f"{row['difference']:+.1f}",
                "environment steps, paper": millions(row["published_env_steps"]),
                "environment steps, here": millions(row["env_steps"]),
            }
            for row in rows.to_dict("records")
        ]
    )


def millions(steps: Any) -> str:
    """Return a number of environment steps in millions; a dash where nobody says, 0 for none."""
    if pd.isna(steps):
        return "-"
    return f"{steps / 1e6:.3g} M" if steps else "0"


def rates_table(
    rates: Mapping[str, Mapping[str, Mapping[str, float | None]]], returns: Iterable[Returns]
) -> pd.DataFrame:
    """Return the rates that evaluation used, and the mean validation returns by rate of the first step.

    Args:
        rates: by task and method, as :data:`metalib.return_files.POLICY_RATES_SCHEMA` says; methods whose rates were
            not chosen are missing.
        returns: with the rates that evaluation used; a row each that adapts.
    """
    names = {rate for by_method in rates.values() for tried in by_method.values() for rate in tried} - {"chosen"}
    rows = []
    for entry in returns:
        tried = rates.get(entry.task, {}).get(entry.method, {})
        row = {"task": TASK_NAMES[entry.task], "method": METHOD_STYLES[entry.method].label}
        row["rates of the steps"] = ", ".join(f"{rate:g}" for rate in entry.rates)
        row["chosen"] = f"{tried['chosen']:g}" if tried else "given"
        for rate in sorted(names, key=float):
            value = tried.get(rate)
            row[f"rate {rate}"] = "-" if value is None else f"{value:.1f}"
        if entry.rates:
            rows.append(row)
    return pd.DataFrame(rows)


def training_shares(comparison: pd.DataFrame) -> list[str]:
    """Return for each task what share of the paper's environment steps MAML was trained for here."""
    known = comparison[(comparison["method"] == "maml") & comparison["published_env_steps"].notna()]
    return [
        f"{100 * row['env_steps'] / row['published_env_steps']:.2g}% ({TASK_NAMES[row['task']]})"
        for row in known.drop_duplicates("task").to_dict("records")
    ]


def incident_rows(settings: Settings) -> pd.DataFrame:
    """Return what went wrong: the counts (settings that begin with ``n_``) of each task and method; "-" if not kept."""
    counts = {name for methods in settings.values() for values in methods.values() for name in values}
    names = [name for name in INCIDENTS if name in counts]
    names += sorted(name for name in counts if name.startswith("n_") and name not in INCIDENTS)
    rows = []
    for task, methods in settings.items():
        for method in (method for method in METHODS if method in methods):
            values = methods[method]
            row = {"task": TASK_NAMES[task], "method": METHOD_STYLES[method].label}
            shown = {INCIDENTS.get(n, n.removeprefix("n_").replace("_", " ")): cell(values.get(n)) for n in names}
            if any(value != "-" for value in shown.values()):
                rows.append({**row, **shown})
    return pd.DataFrame(rows)


def common_settings(settings: Settings) -> dict[str, str]:
    """Return the settings that every trained method of every task has, with one value."""
    trained = [_shown(values) for methods in settings.values() for values in methods.values() if values]
    first = trained[0] if trained else {}
    return {name: value for name, value in first.items() if all(other.get(name) == value for other in trained)}


def setting_rows(settings: Settings) -> pd.DataFrame:
    """Return the other settings: one row a method and setting, one column a task."""
    common = common_settings(settings)
    rows = []
    for method in METHODS:
        shown = {task: _shown(by_method.get(method, {})) for task, by_method in settings.items()}
        for name in dict.fromkeys(name for values in shown.values() for name in values if name not in common):
            by_task = {TASK_NAMES[task]: values.get(name, "-") for task, values in shown.items()}
            rows.append({"method": METHOD_STYLES[method].label, "setting": name, **by_task})
    return pd.DataFrame(rows)


def _shown(values: Mapping[str, Any]) -> dict[str, str]:
    """Return settings as text, without versions and counts, which stand elsewhere."""
    return {n: cell(value) for n, value in values.items() if n != "versions" and not n.startswith("n_")}


def cell(value: Any) -> str:
    """Return plain data as text that fits a table cell."""
    if value is None or value == []:
        return "-"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {cell(part)}" for key, part in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(cell(part) for part in value)
    if isinstance(value, float):
        return f"{value:g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


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
