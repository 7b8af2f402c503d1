"""The part of the report stage that is on the ablation."""

from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from metalib.reporting import ablation
from metalib.reporting.page import render_markdown
from metalib.score_files import load_condition_scores
from stages.running import Run


class AblationReport(NamedTuple):
    """The long ``table``, the section as ``markdown``, ``pictures`` by path, and ``metrics``."""

    table: pd.DataFrame
    markdown: str
    pictures: dict[str, bytes]
    metrics: dict[str, Any]


def ablation_report(run: Run, scores: Path) -> AblationReport:
    """Return the report on the talk's conclusions (settings: report)."""
    settings, loaded = run.params.report, load_condition_scores(scores)
    entries, trained_with = loaded
    table = ablation.ablation_table(
        entries, run.params.evaluate.diverged_above, settings.seed, settings.bootstrap_samples
    )
    hidden = run.params.network.hidden
    context = {
        **ablation.report_context(table),
        "shots": trained_with["shots"],
        "meta_steps": f"{trained_with['meta_steps']:,}",
        "outside_ranges": trained_with["outside"],
        "base_units": hidden[0],
        "base_layers": len(hidden),
    }
    pictures = {"figures/conclusions.png": ablation.conclusions(table)}
    metrics = {"ablation": ablation.headline_metrics(table)}
    return AblationReport(table, render_markdown(context, "ablation.md.j2"), pictures, metrics)
