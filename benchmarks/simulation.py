"""Measure the batched simulation: beside its limit, beside other simulators, and as it grows."""

import importlib.util
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.command import Say, write_figures
from benchmarks.machine import cores, facts, package_versions
from benchmarks.processes import measure

RESULT = Path("benchmarks/results/simulation.json")
SCHEMA = "simulation benchmark 1"
PACKAGES = ("mujoco-core", "gymnasium", "envpool", "torch", "numpy")
TASKS, ROLLOUTS, HORIZON = 40, 20, 200
FAMILIES = {"cheetah": "cheetah_vel", "ant": "ant_vel"}
BODIES_AXIS = (1, 10, 80, 800, 10_000)
QUICK_BODIES_AXIS = (1, 80)


def run(quick: bool, folder: Path, say: Say) -> dict[str, Any]:
    """Make all measurements; return what :mod:`benchmarks.render_simulation` reads."""
    return {
        "schema": SCHEMA,
        "quick": quick,
        "machine": facts(),
        "versions": package_versions(PACKAGES),
        "problem": {"tasks": TASKS, "rollouts": ROLLOUTS, "horizon": 20 if quick else HORIZON},
        "limit": beside_the_limit(quick, folder, say),
        "peers": beside_peers(quick, folder, say),
        "growth": growth(quick, folder, say),
    }


def beside_the_limit(quick: bool, folder: Path, say: Say) -> list[dict[str, Any]]:
    """Measure 40 tasks of 20 rollouts on all cores, for both bodies and timings, beside the bare ``Batch``."""
    horizon, repeats = (20, 1) if quick else (HORIZON, 3)
    return [
        _limited(body, timing, (TASKS, ROLLOUTS, horizon), repeats, cores(), folder, say)
        for body in FAMILIES
        for timing in ("paper", "gymnasium")
    ]


def beside_peers(quick: bool, folder: Path, say: Say) -> list[dict[str, Any]]:
    """Measure Gymnasium's vector environments and EnvPool, under Gymnasium's timing and without a policy."""
    steps, repeats = (5, 1) if quick else (50, 3)
    rows = []
    for body in FAMILIES:
        few = {"body": body, "n_bodies": 4 * len(cores()), "steps": steps, "repeats": repeats}
        for kind in ("sync", "async"):
            function = "benchmarks.simulators:gymnasium_vector"
            rows.append(_peer(f"{kind}_vector_env", body, function, {**few, "kind": kind}, folder, say))
        if importlib.util.find_spec("envpool") is None:
            say("skipped: EnvPool, which is not installed (pip install envpool==1.1.1)")
            continue
        many = {**few, "n_bodies": 50 if quick else TASKS * ROLLOUTS, "steps": max(5, steps // 5)}
        rows.append(_peer("envpool", body, "benchmarks.simulators:envpool_vector", many, folder, say))
    return rows


def growth(quick: bool, folder: Path, say: Say) -> list[dict[str, Any]]:
    """Measure the half-cheetah under paper timing from 1 to 10,000 bodies, and on 1 to all cores."""
    rows = []
    for n_bodies in QUICK_BODIES_AXIS if quick else BODIES_AXIS:  # 40 tasks, or one a body
        tasks = min(TASKS, n_bodies)
        horizon = 20 if quick else max(20, min(HORIZON, 400_000 // n_bodies))
        sizes = (tasks, n_bodies // tasks, horizon)
        row = _limited("cheetah", "paper", sizes, 1 if quick else 3, cores(), folder, say)
        rows.append({**row, "axis": "bodies", "value": n_bodies})
    for count in range(1, len(cores()) + 1):
        sizes = (TASKS, ROLLOUTS, 20 if quick else HORIZON)
        row = _limited("cheetah", "paper", sizes, 1 if quick else 3, cores()[:count], folder, say)
        rows.append({**row, "axis": "threads", "value": count})
    return rows


def _limited(
    body: str, timing: str, sizes: tuple[int, int, int], repeats: int, on: Sequence[int], folder: Path, say: Say
) -> dict[str, Any]:
    tasks, rollouts, horizon = sizes
    counts = {"tasks": tasks, "rollouts": rollouts, "horizon": horizon, "repeats": repeats}
    arguments = {"family": FAMILIES[body], "timing": timing, **counts}
    found = measure("benchmarks.simulators:metalib_and_limit", arguments, on, folder)
    row = compare(found)
    say(
        f"{body}, {timing} timing, {sizes[0] * sizes[1]} bodies, {len(on)} threads: {row['steps_per_second']:.0f} "
        f"steps/s, {row['share_of_limit']:.0%} of the limit"
    )
    return {"body": body, "timing": timing, "threads": len(on), **arguments, **row}


def compare(found: dict[str, Any]) -> dict[str, Any]:
    """Return speeds, and the share of the limit as the median over the pairs that were timed after each other."""
    pairs = list(zip(found["seconds"], found["limit_seconds"], strict=True))
    return {
        "steps": found["steps"],
        "steps_per_second": found["steps"] / statistics.median(found["seconds"]),
        "limit_steps_per_second": found["steps"] / statistics.median(found["limit_seconds"]),
        "share_of_limit": statistics.median(limit / own for own, limit in pairs),
        "peak_resident_mib": found["peak_resident_mib"],
    }


def _peer(name: str, body: str, function: str, arguments: dict[str, Any], folder: Path, say: Say) -> dict[str, Any]:
    found = measure(function, arguments, cores(), folder)
    speed = found["steps"] / statistics.median(found["seconds"])
    say(f"{body}, gymnasium timing, {name}, {arguments['n_bodies']} bodies: {speed:.0f} steps/s")
    return {"name": name, "body": body, "n_bodies": arguments["n_bodies"], "steps_per_second": speed}


def main(
    output: Annotated[Path, typer.Option(help="The JSON file to write.")] = RESULT,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer steps and sizes.")] = False,
) -> None:
    """Measure the batched simulation beside its limit and other simulators; write the figures as JSON.

    Every measurement runs in a process of its own. Use the machine for nothing else meanwhile.
    """
    with tempfile.TemporaryDirectory(prefix="metalib-bench-") as folder:
        write_figures(output, lambda: run(quick, Path(folder), typer.echo))


if __name__ == "__main__":
    typer.run(main)
