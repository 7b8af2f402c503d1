"""Meta-train policies briefly with several values of one setting, and compare what they earn on validation goals."""

import json
import shlex
import shutil
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from benchmarks.machine import facts
from metalib.config import ConfigError, Params, load_params
from metalib.locomotion.families import family_named
from metalib.reporting.page import markdown_table
from metalib.return_files import TASKS
from tools.results import RUN, put_in_place, refuse_other_folder
from tools.trial import ROOT, from_root, run_stage

FOLDER = ROOT / ".cache" / "policy-settings"
STAGE = "meta_train_policy"
LAST = 10
"""Training returns are noisy from one meta-step to the next; the mean of so many is shown."""


def main(
    task: Annotated[str, typer.Argument(help=f"One of {', '.join(TASKS)}.")],
    setting: Annotated[str, typer.Argument(help="Its path in params.yaml: policy.observation_scale.ant.velocities.")],
    values: Annotated[list[str], typer.Argument(help="Two or more, as in params.yaml; after -- if negative.")],
    meta_steps: Annotated[int, typer.Option(min=LAST, help="Of each value and seed.")] = 60,
    seeds: Annotated[int, typer.Option(min=1, help="How many, from 0.")] = 2,
    output: Annotated[
        Path | None, typer.Option(help="Folder to write; results/policy-settings/TASK-SETTING if not given.")
    ] = None,
) -> None:
    """Compare values of one setting for MAML on TASK; all others are those of params.yaml.

    No test goal is looked at: settings are to be chosen by training and validation goals alone. Needs the goals
    (`dvc repro generate_goals@TASK`). `dvc exp run -S SETTING=VALUE` runs one value through the whole pipeline.
    """
    if task not in TASKS:
        raise typer.BadParameter(f"there is no task {task!r}; name one of {', '.join(TASKS)}")
    if len(values) < 2:
        raise typer.BadParameter(f"only {values[0]} is given, but a comparison needs two values or more")
    target = output or ROOT / "results" / "policy-settings" / f"{task}-{setting.replace('.', '-')}"
    refuse_other_folder(target)
    runs = [FOLDER / str(number) for number in range(len(values))]
    read = [
        settings_of(written(run / "params.yaml", task, setting, value, meta_steps, seeds), task)
        for run, value in zip(runs, values, strict=True)
    ]
    refuse_what_trains_alike(task, setting, values, read)
    rows = []
    for run, value in zip(runs, values, strict=True):
        run_stage(STAGE, [task, f"data/{task}", str(run / "maml")], run / "params.yaml")
        rows.append({"value": value, **outcome(pd.read_csv(run / "maml" / "curves.tsv", sep="\t"))})
    table = pd.DataFrame(rows)
    results = FOLDER / "results"
    shutil.rmtree(results, ignore_errors=True)
    results.mkdir()
    table.to_csv(results / "table.csv", index=False, float_format="%.6g")
    options = ["--meta-steps", str(meta_steps), "--seeds", str(seeds)]
    options += [] if output is None else ["--output", str(from_root(output))]
    command = shlex.join(["python", "-m", "tools.policy_settings", *options, task, setting, "--", *values])
    (results / RUN).write_text(json.dumps({"command": command, "machine": facts()}, indent=1) + "\n")
    (results / "README.md").write_text(page(table, task, setting, meta_steps, seeds, command))
    put_in_place(results, target)
    print(f"written: {target / 'README.md'}")


def written(target: Path, task: str, setting: str, value: str, meta_steps: int, seeds: int) -> Params:
    """Write params.yaml with one value of a setting, and return it as read again.

    Raises:
        typer.BadParameter: the value is not YAML, or not allowed; or as :func:`write_settings`.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        write_settings(target, task, setting, value, meta_steps, seeds)
        return load_params(target)
    except (YAMLError, ConfigError) as error:
        raise typer.BadParameter(f"{setting}: {value}: {' '.join(str(error).split())}") from error


def refuse_what_trains_alike(task: str, setting: str, values: Sequence[str], read: Sequence[dict[str, Any]]) -> None:
    """Refuse two values whose settings ``read``, of :func:`settings_of`, are the same.

    Raises:
        typer.BadParameter: names them.
    """
    for (one, first), (other, second) in combinations(zip(values, read, strict=True), 2):
        if first == second:
            raise typer.BadParameter(
                f"{setting}: {one} and {other} make no difference to {STAGE} on {task}; name a setting of policy or "
                f"{STAGE} that it reads (--meta-steps and --seeds are options here)"
            )


def settings_of(params: Params, task: str) -> dict[str, Any]:
    """Return the settings that training on ``task`` reads; of those by task or body, its own."""
    mine = (task, family_named(task).body)
    sections = {"policy": params.policy.model_dump(), STAGE: params.meta_train_policy.model_dump()}
    return {
        f"{section}.{key}": next((value[name] for name in mine if isinstance(value, dict) and name in value), value)
        for section, settings in sections.items()
        for key, value in settings.items()
    }


def write_settings(target: Path, task: str, setting: str, value: str, meta_steps: int, seeds: int) -> None:
    """Write params.yaml with one value of a setting.

    Raises:
        typer.BadParameter: there is no section of that name to hold the setting.
    """
    yaml = YAML()
    content = yaml.load(ROOT / "params.yaml")
    *path, name = setting.split(".")
    section: Any = content
    for part in path:
        section = section.get(part) if isinstance(section, dict) else None
    if not path or not isinstance(section, dict):
        raise typer.BadParameter(f"params.yaml has no section {'.'.join(path) or setting!r} that could hold {setting}")
    section[name] = YAML(typ="safe").load(value)
    counts = content["scales"][content["scale"]][STAGE]
    counts["meta_steps"][task], counts["seeds"] = meta_steps, list(range(seeds))
    yaml.dump(content, target)


def outcome(curves: pd.DataFrame) -> dict[str, float]:
    """Return where training ended: its last mean returns, and the last and the best on the validation goals."""
    last, looked = curves.tail(LAST), curves["validation_return"].dropna()
    return {
        "before": last["return_before"].mean(),
        "adapted": last["return_after"].mean(),
        "validation": looked.iloc[-1],
        "best validation": looked.max(),
        "env_steps": curves["env_steps"].iloc[-1],
    }


def page(table: pd.DataFrame, task: str, setting: str, meta_steps: int, seeds: int, command: str) -> str:
    """Return what was found, as Markdown."""
    return f"""# {task}: values of {setting}

MAML after {meta_steps} meta-steps, the mean of {seeds} {"seed" if seeds == 1 else "seeds"}; all other settings are
those of params.yaml. Undiscounted returns: before and after adaptation on the goals of training (mean of the last
{LAST} meta-steps), and after adaptation on the validation goals, last and best mean. env_steps: of each seed.

{markdown_table(table)}

Made again by `{command}`.
"""


if __name__ == "__main__":
    typer.run(main)
