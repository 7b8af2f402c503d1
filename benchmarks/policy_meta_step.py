"""Measure one whole MAML-TRPO meta-step: where its time goes, and its learning beside a plain loop over tasks."""

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.command import Say, write_figures
from benchmarks.machine import cores, facts, package_versions
from benchmarks.policies.cases import CASES, case_named
from benchmarks.policies.race import TOLERANCES
from benchmarks.processes import measure

RESULT = Path("benchmarks/results/policy_meta_step.json")
SCHEMA = "policy meta-step benchmark 2"
PACKAGES = ("torch", "numpy", "mujoco-core")
TARGET: dict[str, Any] = {"case": "small", "seconds": 1.5, "threads": 2}
"""A whole meta-step of the case should take at most so long on so many processors."""
REPEATS = {"small": 7}
_REPEATS = 3
_MEASURE = "benchmarks.policies.measurement:meta_step"


def run(quick: bool, folder: Path, say: Say) -> dict[str, Any]:
    """Make all measurements; return what :mod:`benchmarks.render_policy_meta_step` reads."""
    cases = {name: measure_case(name, quick, folder, say) for name in CASES}
    return {
        "schema": SCHEMA,
        "quick": quick,
        "machine": facts(),
        "versions": package_versions(PACKAGES),
        "threads": len(cores()),
        "tolerances": TOLERANCES,
        "cases": cases,
        "target": target(cases, quick, folder),
    }


def measure_case(name: str, quick: bool, folder: Path, say: Say) -> dict[str, Any]:
    """Measure a case on all processors, in a process of its own."""
    case = case_named(name, quick)
    arguments = {"name": name, "quick": quick, "repeats": repeats(name, quick)}
    found = measure(_MEASURE, arguments, cores(), folder)
    say(
        f"{case.label}: {found['whole_s']:.2f} s a meta-step, {found['env_steps_per_second']:.0f} environment steps/s; "
        f"outer step {found['plain_loop']['outer_step']['times_as_fast']:.1f} times as fast as a plain loop"
    )
    return {"case": asdict(case), "repeats": arguments["repeats"], **found}


def target(cases: dict[str, Any], quick: bool, folder: Path) -> dict[str, Any]:
    """Return the target and what was measured on as many processors, or on all where there are fewer."""
    name, on = TARGET["case"], cores()[: TARGET["threads"]]
    if len(on) == len(cores()):
        found = cases[name]
    else:
        arguments = {"name": name, "quick": quick, "repeats": repeats(name, quick), "beside_plain_loop": False}
        found = measure(_MEASURE, arguments, on, folder)
    return {"at_most": TARGET, "threads": len(on), "seconds": found["whole_s"]}


def repeats(name: str, quick: bool) -> int:
    """Return how many samples are taken of a case."""
    return _REPEATS if quick else REPEATS.get(name, _REPEATS)


def main(
    output: Annotated[Path, typer.Option(help="The JSON file to write.")] = RESULT,
    quick: Annotated[bool, typer.Option("--quick", help="Tiny sizes.")] = False,
) -> None:
    """Measure whole meta-steps of policies and their parts, beside a plain loop; write the figures as JSON.

    Every case runs in a process of its own. Use the machine for nothing else meanwhile.
    """
    with tempfile.TemporaryDirectory(prefix="metalib-bench-") as folder:
        write_figures(output, lambda: run(quick, Path(folder), typer.echo))


if __name__ == "__main__":
    typer.run(main)
