"""The sections of the benchmark page on convolutions, the LSTM rule and saving; no number is written by hand."""

from typing import Any

import pandas as pd

from metalib.reporting.page import markdown_table

SETTING_NAMES = {"one_thread": "one thread", "all_threads": "all threads"}


def sections(results: dict[str, Any]) -> list[str]:
    """Return the sections, from what `benchmarks.classification` wrote."""
    return [_convolutions(results), _lstm(results), _saving(results["saving"], results["run_labels"])]


def _convolutions(results: dict[str, Any]) -> str:
    problem, check = results["convolutions"][0]["problem"], results["check"]
    text = (
        "## Convolutions\n\n"
        f"One meta-step of MAML on few-shot images: {problem['tasks']} episodes of {problem['size']} x "
        f"{problem['size']} images (noise, which costs what letters cost), {problem['ways']}-way, {problem['queries']} "
        f"query images a class, conv4 with {problem['width']} filters, {problem['inner_steps']} inner gradient step at "
        f"{problem['inner_rate']:g}, second order, Adam, float32 on the CPU. metalib computes a convolution as a "
        "matrix product over patches; PyTorch's layers are `Conv2d`, which vmap makes a grouped convolution, and "
        "`BatchNorm2d`. Before it is timed, each contender's meta-gradient is held to a float64 reference, the loop "
        f"over episodes: every part of it is within {check['tolerance']:.0e} of its length, else the run fails "
        "(`benchmarks/few_shot/measure.py`). Every contender runs in processes of its own, in turn with the others."
    )
    tables = [
        f"### {entry['problem']['ways']}-way {entry['problem']['shots']}-shot, {name} ({entry[setting]['threads']})\n\n"
        + _table(entry[setting]["contenders"], results["labels"], "times as fast as the loop")
        for entry in results["convolutions"]
        for setting, name in SETTING_NAMES.items()
        if setting in entry
    ]
    return "\n\n".join([text, *tables])


def _table(contenders: dict[str, Any], labels: dict[str, str], ratio: str, coordinate_steps: bool = False) -> str:
    ordered = sorted(contenders.items(), key=lambda item: item[1]["ms_median"])
    rows = []
    for name, row in ordered:
        cells = {"": labels[name], "ms, median": row["ms_median"], "ms, least": row["ms_min"]}
        if coordinate_steps:
            cells["µs a coordinate-step"] = row["us_per_coordinate_step_median"]
        rows.append(
            {
                **cells,
                ratio: row["times_as_fast_median"],
                "prepared in s, first": row["prepare_first_s"],
                "later": row["prepare_later_s"],
                "MiB": round(row["peak_resident_mib"]),
                "largest deviation": f"{row['largest_deviation']:.0e}",
            }
        )
    return markdown_table(pd.DataFrame(rows))


def _lstm(results: dict[str, Any]) -> str:
    text = (
        "## The LSTM rule\n\n"
        "One exact meta-step (gradient and loss are no constants) of the LSTM meta-learner with 20 hidden units, one "
        "thread, eager around the rule: "
        "the rule as tensor operations, and its step in one kernel (`metalib/update_rules/lstm_kernel.cpp`). Both are "
        "held to the plain rule in float64 as above. A coordinate-step is one inner step of one parameter of one task, "
        "its share of the outer gradient included."
    )
    tables = [
        f"### {_learner(entry)}\n\n"
        + _table(entry["one_thread"]["contenders"], results["labels"], "times as fast as the plain rule", True)
        for entry in results["lstm"]
    ]
    return "\n\n".join([text, *tables])


def _learner(entry: dict[str, Any]) -> str:
    problem = entry["problem"]
    if problem["learner"] == "mlp":
        task = f"Sinusoids, K = {problem['shots']}"
    else:
        task = f"Images, {problem['ways']}-way {problem['shots']}-shot, conv4 with {problem['width']} filters"
    tasks = "1 task" if problem["tasks"] == 1 else f"{problem['tasks']} tasks"
    return f"{task}: {entry['coordinates']:,} coordinates, {tasks}, T = {problem['inner_steps']}"


def _saving(saving: dict[str, Any], labels: dict[str, str]) -> str:
    every = f"{saving['every_seconds']:g} s"
    rows = [
        {
            "": labels[name],
            "KiB": round(row["kib"]),
            "ms, median": row["ms_median"],
            "ms, least": row["ms_min"],
            "ms, most": row["ms_max"],
            f"share of {every}": _percent(row["share_median"]),
            "at most": _percent(row["share_max"]),
        }
        for name, row in saving["runs"].items()
    ]
    return (
        "## Saving training state\n\n"
        f"Training saves parameters, optimiser and curve at most every {every} (`checkpoint_seconds`): serialised, "
        "hashed, written, flushed to the disk and moved into place. The time of one saving, near the end of a run of "
        "the default scale, as a share of the training between two:\n\n" + markdown_table(pd.DataFrame(rows))
    )


def _percent(share: float) -> str:
    return f"{100 * share:.3f} %"
