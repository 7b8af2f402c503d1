"""What the report on sinusoid regression says: every figure of its text, from the long table and stored settings."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from metalib.randomness import generator
from metalib.reporting.published import read_table
from metalib.reporting.style import METHOD_STYLES
from metalib.reporting.tables import (
    PUBLISHED_COLUMNS,
    beside_published,
    examples_needed,
    left_out,
    own_shots,
    steps_needed,
)
from metalib.reporting.wording import counted
from metalib.score_files import Scores
from metalib.statistics import single_run_means
from metalib.tasks.dataset import TaskSet

PREFERRED_SHOTS = 10  # the K of the paper's figure 2 and of the talk's example


def headline_shots(available: list[int]) -> int:
    """Return the K that headline and illustration speak of: 10 where it was run, else the smallest."""
    return PREFERRED_SHOTS if PREFERRED_SHOTS in available else min(available)


def report_context(
    table: pd.DataFrame,
    anchors: Mapping[str, float],
    published: Path,
    rates: Mapping[str, Mapping[str, Mapping[str, float | None]]],
    settings: Mapping[str, Mapping[str, Any]],
    targets: tuple[float, ...],
) -> dict[str, Any]:
    """Return the values that ``report.md.j2`` asks for, apart from settings that the stage adds.

    Args:
        table: the long table of :func:`metalib.reporting.tables.score_table`.
        anchors: errors of predictors that know no task.
        published: CSV of published figures.
        rates: for each fine-tuned method and K, the rates tried and the chosen.
        settings: for each method what training was told.
        targets: errors of the table "steps and examples needed".
    """
    query_points = int(table["query_points"].max())
    steps = int(table["gradient_step"].max())
    shown = own_shots(table, query_points)
    comparison = beside_published(table, anchors, published, query_points)
    crossed = _crossed(table, query_points, steps)
    plain = {method: _plain(values) for method, values in settings.items()}
    return {
        "anchors": anchors,
        "steps": steps,
        "query_points": query_points,
        "shots": sorted(int(k) for k in table["test_shots"].unique()),
        "n_tasks": int(table["n_tasks"].max()),
        "seeds": counted(table["n_seeds"], "training seed"),
        "headline": _headline(shown, steps, min(settings["lstm"]["inner_steps"], steps)),
        "summary_table": _summary_table(shown, steps),
        "steps_table": _named(steps_needed(shown, targets)),
        "examples_table": _named(examples_needed(shown, targets, steps)),
        "cross_table": _cross_table(crossed),
        "cross_left_out": [
            f"{diverged} (trained at {row['train_shots']}, tested at {row['test_shots']})"
            for _, row in crossed.iterrows()
            if (diverged := left_out(row))
        ],
        "published_table": _published_table(comparison),
        "sources": list(dict.fromkeys(comparison["source"])),
        "rates_table": _rates_table(rates),
        "settings": {METHOD_STYLES[m].label: values for m, values in plain.items()},
        "setting_names": list(dict.fromkeys(name for values in plain.values() for name in values)),
        "pretrained_points": plain["pretrained"]["points"],
        "versions": ", ".join(f"{k} {v}" for k, v in settings["maml"]["versions"].items()),
    }


def unseen_half_errors(illustrations: TaskSet, predicted: Mapping[str, Tensor]) -> dict[str, float]:
    """Return each method's mean squared error after its last step where the illustrations hold no support.

    Args:
        illustrations: tasks whose support lies in one half of the inputs.
        predicted: by method, ``[tasks, steps + 1, n]`` on the tasks' query inputs.
    """
    low, high = illustrations.family.x
    middle = (low + high) / 2
    support_is_upper = illustrations.support.x[:, :1, 0] > middle
    unseen = (illustrations.query.x[..., 0] > middle) != support_is_upper
    truth = illustrations.query.y[..., 0]
    return {
        METHOD_STYLES[method].label: float(((curves[:, -1] - truth)[unseen] ** 2).double().mean())
        for method, curves in predicted.items()
    }


def _headline(shown: pd.DataFrame, steps: int, lstm_steps: int) -> dict[str, float]:
    tested = [set(rows["test_shots"]) for _, rows in shown.groupby("method")]
    k = headline_shots([int(k) for k in set.intersection(*tested)])

    def error(method: str, step: int) -> float:
        rows = shown[(shown["method"] == method) & (shown["test_shots"] == k) & (shown["gradient_step"] == step)]
        return float(rows["mse_mean"].iloc[0])

    return {
        "k": k,
        "steps": steps,
        "maml_before": error("maml", 0),
        "maml_after_one": error("maml", 1),
        "maml_after_all": error("maml", steps),
        "pretrained_after_all": error("pretrained", steps),
        "ratio": error("pretrained", steps) / error("maml", steps),
        "oracle": error("oracle", 0),
        "lstm_steps": lstm_steps,
        "lstm_after": error("lstm", lstm_steps),
    }


def _summary_table(shown: pd.DataFrame, steps: int) -> pd.DataFrame:
    rows = []
    for keys, group in shown.groupby(["test_shots", "method"], sort=False):
        k, method = keys if isinstance(keys, tuple) else (keys, "")
        by_step = group.set_index("gradient_step")
        last = by_step.iloc[-1]
        row: dict[str, Any] = {"K": k, "method": METHOD_STYLES[str(method)].label}
        for step in dict.fromkeys((0, 1, steps // 2, steps)):
            row[f"step {step}"] = _with_interval(by_step.loc[step]) if step in by_step.index else None
        rows.append({**row, "seed spread": float(last["seed_std"]), "diverged": int(last["n_diverged"])})
    return pd.DataFrame(rows).sort_values("K", kind="stable")


def seed_table(scores: Iterable[Scores], diverged_above: float) -> pd.DataFrame:
    """Return how training seeds differ: MAML's mean and median errors by seed, on the largest query set.

    For the headline K of training (the published table's), tested at the smallest K. Columns: seed (a
    number from 0), mean errors after 1, half and all steps, the median after all steps, the share of tasks
    with an error above 5 after half of the steps.
    """
    trained, tested, values = _other_shots(scores)
    kept = values.masked_fill(~(values <= diverged_above), torch.nan)
    steps = values.shape[2] - 1
    half = max(steps // 2, 1)
    last = values[:, :, steps].masked_fill(values[:, :, steps].isnan(), torch.inf)
    rows = []
    for seed in range(len(values)):
        row: dict[str, Any] = {"seed": str(seed)}
        for step in dict.fromkeys((1, half, steps)):
            row[f"mean, step {step}"] = float(kept[seed, :, step].nanmean())
        row[f"median, step {steps}"] = float(last[seed].median())
        row[f"tasks above 5, step {half}"] = f"{100 * float((~(values[seed, :, half] <= 5)).double().mean()):.1f}%"
        rows.append(row)
    return pd.DataFrame(rows).assign(**{"trained at K": trained, "tested at K": tested})


def single_runs_table(
    scores: Iterable[Scores], diverged_above: float, published: Path, seed: int, bootstrap_samples: int
) -> pd.DataFrame:
    """Return where published errors lie among those that one training run on one draw of tasks might report.

    For MAML trained and tested as in :func:`seed_table`. Columns: gradient steps, published, the median and the range
    of 95% of such runs, and the share of them whose error is at most the published; see
    :func:`metalib.statistics.single_run_means`.
    """
    trained, tested, values = _other_shots(scores)
    means = single_run_means(values, diverged_above, generator(seed, "bootstrap, single runs"), bootstrap_samples)
    theirs = read_table(published, PUBLISHED_COLUMNS)
    asked = (theirs["method"] == "maml") & (theirs["train_shots"] == trained) & (theirs["test_shots"] == tested)
    rows = []
    for row in theirs[asked & (theirs["gradient_steps"] < values.shape[2])].to_dict("records"):
        at_step = means[:, int(row["gradient_steps"])]
        low, median, high = at_step.nanquantile(torch.tensor([0.025, 0.5, 0.975], dtype=torch.float64)).tolist()
        rows.append(
            {
                "gradient steps": int(row["gradient_steps"]),
                "published": row["mse"],
                "single runs here: median": median,
                "95% of them": f"[{low:.3f}, {high:.3f}]",
                "at or below the published": f"{100 * float((at_step <= row['mse']).double().mean()):.0f}%",
            }
        )
    return pd.DataFrame(rows)


def _other_shots(scores: Iterable[Scores]) -> tuple[int, int, Tensor]:
    """Return MAML's errors tested at another K than trained at: both K, and ``[seed, task, step]`` float64."""
    entries = [s for s in scores if s.method == "maml" and s.train_shots is not None]
    trained = headline_shots([s.train_shots for s in entries if s.train_shots is not None])
    tested = min(s.test_shots for s in entries)
    here = [s for s in entries if (s.train_shots, s.test_shots) == (trained, tested)]
    return trained, tested, max(here, key=lambda s: s.query_points).values.double()


def _with_interval(row: Any) -> str:
    return f"{row['mse_mean']:.3f} [{row['ci95_low']:.3f}, {row['ci95_high']:.3f}]"


def _named(table: pd.DataFrame) -> pd.DataFrame:
    """Replace method keys by labels and floats that stand for counts by whole numbers."""
    named = table.assign(method=[METHOD_STYLES[str(m)].label for m in table["method"]])
    targets = [column for column in named.columns if column not in ("method", "test_shots")]
    named[targets] = named[targets].astype("Int64")
    return named.rename(columns={"test_shots": "K", **{t: f"error ≤ {t}" for t in targets}})


def _crossed(table: pd.DataFrame, query_points: int, steps: int) -> pd.DataFrame:
    """Return MAML's rows after all steps, for every K of training and of the test."""
    return table[
        (table["method"] == "maml") & (table["query_points"] == query_points) & (table["gradient_step"] == steps)
    ]


def _cross_table(rows: pd.DataFrame) -> pd.DataFrame:
    pivot = rows.pivot_table(index="train_shots", columns="test_shots", values="mse_mean")
    pivot.columns = [f"tested at K = {k}" for k in pivot.columns]
    return pivot.rename_axis("trained at K").reset_index()


def _published_table(comparison: pd.DataFrame) -> pd.DataFrame:
    names = {"zero_function": "zero function", "best_non_adapting": "best non-adapting"}
    interval = [
        "-" if pd.isna(low) else f"[{low:.3f}, {high:.3f}]"
        for low, high in zip(comparison["ci95_low"], comparison["ci95_high"], strict=True)
    ]
    return pd.DataFrame(
        {
            "method": [names.get(m) or METHOD_STYLES[m].label for m in comparison["method"]],
            "trained at K": comparison["train_shots"],
            "tested at K": comparison["test_shots"],
            "gradient steps": comparison["gradient_step"],
            "published": comparison["published"],
            "ours": comparison["ours"],
            "95% interval": interval,
            "diverged": [text or "-" for text in comparison["left_out"]],
            "ours - published": comparison["difference"],
        }
    )


def _rates_table(rates: Mapping[str, Mapping[str, Mapping[str, float | None]]]) -> pd.DataFrame:
    rows = []
    for method, by_shots in rates.items():
        for name, tried in sorted(by_shots.items(), key=lambda item: int(item[0].removeprefix("k"))):
            errors = {f"rate {r}": e for r, e in tried.items() if r != "chosen"}
            ordered = dict(sorted(errors.items(), key=lambda item: float(item[0].removeprefix("rate "))))
            row = {"method": METHOD_STYLES[method].label, "K": int(name.removeprefix("k"))}
            rows.append({**row, "chosen rate": f"{tried['chosen']:g}", **ordered})
    return pd.DataFrame(rows)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings that fit a table cell."""
    flat = {name: value for name, value in values.items() if name != "versions"}
    return {n: ", ".join(map(str, v)) if isinstance(v, list) else v for n, v in flat.items()}
