"""Train and evaluate policies of some locomotion tasks at paper scale, and write what was found to results/paper."""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import mujoco
import typer
from ruamel.yaml import YAML

from benchmarks.machine import facts, package_versions
from metalib.return_files import TASKS, load_returns
from tools.clone import clone_work_tree
from tools.environment import with_this_python
from tools.quick import set_scale
from tools.results import RUN, put_in_place, refuse_other_folder

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".cache" / "paper"
STAGES = ("meta_train_policy", "train_policy_baseline", "evaluate_policy")
CURVES = ("maml/curves.tsv", "baselines/pretrained-curves.tsv", "baselines/oracle-curves.tsv")
PACKAGES = ("torch", "gymnasium", "numpy")


def main(
    tasks: Annotated[list[str], typer.Argument(help=f"Some of {', '.join(TASKS)}.")],
    meta_steps: Annotated[
        int | None,
        typer.Option(min=1, help="Meta-steps, of MAML and of the baselines, instead of those of paper scale."),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Folder to write; results/paper/TASKS if not given.")] = None,
    folder: Annotated[Path, typer.Option(help="Where the copy lies in which the stages run.")] = FOLDER,
) -> None:
    """Run the locomotion stages of TASKS at paper scale: under an hour for both half-cheetahs, hours for an ant.

    They run in a copy of the work tree, which stays as it is. The copy is kept: interrupted, the same command goes on.
    Writes the report of these tasks with its tables, figures and learning curves, params.yaml, the part of dvc.lock,
    and run.json and README.md: what each stage took, on which machine.
    """
    if unknown := [task for task in tasks if task not in TASKS]:
        raise typer.BadParameter(f"there is no task {unknown[0]!r}; name some of {', '.join(TASKS)}")
    # A folder for each choice of tasks: to run others must not replace what was found for these.
    name = "-".join(tasks) + (f"-{meta_steps}-meta-steps" if meta_steps else "")
    target = output or ROOT / "results" / "paper" / name
    refuse_other_folder(target)
    whole = paper_meta_steps(ROOT / "params.yaml", tasks)
    few = [f"{task} has {steps:,}" for task, steps in whole.items() if meta_steps and steps <= meta_steps]
    if few:
        raise typer.BadParameter(f"--meta-steps {meta_steps:,} makes no run shorter: {', '.join(few)}")
    if meta_steps and (bare := without_pretraining(ROOT / "params.yaml", tasks, meta_steps)):
        raise typer.BadParameter(
            f"--meta-steps {meta_steps:,} leaves no meta-step to the pretraining of {', '.join(bare)}; name more, or "
            "set it to 0 in scales.paper.meta_train_policy.pretraining of params.yaml"
        )
    folder.mkdir(parents=True, exist_ok=True)
    clone_work_tree(ROOT, folder)
    set_scale(folder / "params.yaml", "paper")
    if meta_steps:
        shorten(folder / "params.yaml", tasks, meta_steps)
    _python(folder, ["-m", "dvc", "repro", *(f"evaluate_policy@{task}" for task in tasks)])
    report = folder / "paper-report"
    shutil.rmtree(report, ignore_errors=True)  # as an interrupted run may have left it, with more than the stage writes
    _python(folder, ["-m", "stages.locomotion_report", "data", "artifacts", "published", report.name, *tasks])
    for task in tasks:
        for curve in CURVES:
            copy = report / "curves" / f"{task}-{curve.replace('/', '-')}"
            copy.parent.mkdir(exist_ok=True)
            shutil.copyfile(folder / "artifacts" / task / curve, copy)
    shutil.copyfile(folder / "params.yaml", report / "params.yaml")
    copy_lock(folder / "dvc.lock", report / "dvc.lock", tasks)
    run = describe(folder, tasks)
    if meta_steps:
        run = {**run, "command": f"{run['command']} META_STEPS={meta_steps}", "shortened": [meta_steps, whole]}
    (report / RUN).write_text(json.dumps(run, indent=1) + "\n")
    (report / "README.md").write_text(readme(run))
    put_in_place(report, target)
    print(f"report: {target / 'report.md'}")


def paper_meta_steps(params: Path, tasks: Sequence[str]) -> dict[str, int]:
    """Return the meta-steps of MAML at paper scale by task, from a settings file."""
    counts = YAML(typ="safe").load(params)["scales"]["paper"]["meta_train_policy"]["meta_steps"]
    return {task: counts[task] for task in tasks}


def without_pretraining(params: Path, tasks: Sequence[str], meta_steps: int) -> list[str]:
    """Return the tasks with pretraining at paper scale of which no meta-step would be left in so short a run."""
    shares = YAML(typ="safe").load(params)["scales"]["paper"]["meta_train_policy"]["pretraining"]
    return [task for task in tasks if shares[task] and not round(shares[task] * meta_steps)]


def shorten(params: Path, tasks: Sequence[str], meta_steps: int) -> None:
    """Set the meta-steps of ``tasks`` at paper scale in a settings file, those of MAML and of the baselines."""
    yaml = YAML()
    yaml.width = 1000  # no line is broken that was not
    content = yaml.load(params)
    for section in ("meta_train_policy", "train_policy_baseline"):
        for task in tasks:
            content["scales"]["paper"][section]["meta_steps"][task] = meta_steps
    yaml.dump(content, params)


def copy_lock(lock: Path, target: Path, tasks: Sequence[str]) -> None:
    """Copy the part of a lock file that is on the stages of ``tasks``."""
    yaml = YAML()
    content = yaml.load(lock)
    names = {f"{stage}@{task}" for stage in ("generate_goals", *STAGES) for task in tasks}
    content["stages"] = {name: entry for name, entry in content["stages"].items() if name in names}
    yaml.dump(content, target)


def describe(folder: Path, tasks: Sequence[str]) -> dict[str, Any]:
    """Return what the stages of ``tasks`` took in ``folder``, on which machine, and the command that repeats them."""
    costs = {stage: folder / "logs" / "stages" / f"{stage}.json" for stage in _names(tasks)}
    return {
        "command": f"make paper TASKS='{' '.join(tasks)}'",
        "stages": {stage: json.loads(path.read_text()) for stage, path in costs.items() if path.exists()},
        "env_steps": {task: _env_steps(folder, task) for task in tasks},
        "machine": facts(),
        "versions": {**package_versions(PACKAGES), "mujoco": mujoco.__version__},
    }


def _names(tasks: Sequence[str]) -> list[str]:
    return [f"{stage}@{task}" for task in tasks for stage in STAGES]


def _env_steps(folder: Path, task: str) -> dict[str, int]:
    """Return the environment steps of training by method."""
    returns, _ = load_returns(folder / "artifacts" / task / "scores" / "returns.safetensors")
    return {entry.method: entry.env_steps for entry in returns}


def readme(run: dict[str, Any]) -> str:
    """Return a page on a run: results, cost, machine, command."""
    rows = [
        f"| {name} | {cost['seconds'] / 3600:.2f} | {cost['peak_memory_mb']:,} |"
        for name, cost in run["stages"].items()
    ]
    steps = [
        f"| {task} | {method} | {count:,} |"
        for task, counts in run["env_steps"].items()
        for method, count in counts.items()
    ]
    machine, versions = run["machine"], ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    shortened = ""
    if "shortened" in run:
        taken, whole = run["shortened"]
        those = ", ".join(f"{steps:,} ({task})" for task, steps in whole.items())
        shortened = f"\nShorter than the project's paper scale: {taken:,} meta-steps instead of {those}.\n"
    return f"""# Locomotion at paper scale
{shortened}
[The report](report.md), its [table](tables/locomotion.csv), [learning curves](curves), [settings](params.yaml) and the
[lock file](dvc.lock) of the stages that made it. Made again by

    {run["command"]}

on {machine["cores"]} cores of {machine["cpu"]} with {machine["memory_gib"]} GiB of memory; Python {machine["python"]},
{versions}. Other work may have shared the machine.

| task | method | environment steps of training |
|---|---|---:|
{chr(10).join(steps)}

| stage | hours | peak memory of a process, MB |
|---|---:|---:|
{chr(10).join(rows)}

A stage that was interrupted and continued counts from where it continued.
"""


def _python(folder: Path, arguments: Sequence[str]) -> None:
    """Run this Python in ``folder``; end with its exit code if it fails."""
    code = subprocess.run([sys.executable, *arguments], cwd=folder, env=with_this_python(), check=False).returncode
    if code:
        raise typer.Exit(code)


if __name__ == "__main__":
    typer.run(main)
