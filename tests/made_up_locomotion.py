"""Made-up results of locomotion in the shape that training and evaluation leave them, for tests of the report."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from metalib.locomotion.rendering import save_animation
from metalib.randomness import generator
from metalib.return_files import (
    POLICY_RATES_SCHEMA,
    TASKS,
    Returns,
    Speeds,
    save_returns,
    save_speeds,
)
from metalib.storage import write_checked_json, write_text

GOALS = {"cheetah_vel": (0.5, 1.5), "cheetah_dir": (-1.0, 1.0), "ant_vel": (0.75, 2.25), "ant_dir": (-1.0, 1.0)}
BEFORE_AND_AFTER = {  # mean returns of MAML before and after one step, and of the oracle
    "cheetah_vel": (-130.0, -80.0, -55.0),
    "cheetah_dir": (-50.0, 290.0, 440.0),
    "ant_vel": (30.0, 95.0, 108.0),
    "ant_dir": (9.0, 400.0, 520.0),
    "point_navigation": (-15.0, -3.0, -1.0),
}
RATES = (0.1, 0.05, 0.05)


def write_made_up_results(artifacts: Path, tasks=TASKS, n_seeds=2, videos=True):
    """Write everything that the report reads of ``tasks``."""
    for task in tasks:
        scores = artifacts / task / "scores"
        save_returns(scores / "returns.safetensors", made_up_returns(task, n_seeds), made_up_settings(task))
        rates = {"0.05": -90.0, "0.1": -80.25, "1.0": None, "chosen": 0.1}
        write_checked_json(scores / "rates.json", POLICY_RATES_SCHEMA, {"pretrained": rates, "random": rates})
        if task in GOALS:
            save_speeds(scores / "speeds.safetensors", made_up_speeds(task))
        if videos:
            frames = [Image.new("RGB", (60, 40), (0, 40 * i, 0)) for i in range(4)]
            save_animation(scores / "video.webp", frames, 8)
        write_curves(artifacts / task, *BEFORE_AND_AFTER[task])


def made_up_returns(task, n_seeds=2, n_goals=40):
    """Goals differ by a tenth of the largest return; seeds by a tenth of that."""
    before, after, oracle = BEFORE_AND_AFTER[task]
    rollouts = 40 if task == "ant_dir" else 20
    spread = max(abs(before), abs(after)) / 10
    numbers = generator(0, f"made-up returns, {task}")
    by_goal = spread * torch.randn(1, n_goals, 1, generator=numbers, dtype=torch.float64)

    def returns(method, means, rates, env_steps):
        seeds = torch.randn(n_seeds, n_goals, len(means), generator=numbers, dtype=torch.float64)
        values = torch.tensor(means, dtype=torch.float64) + by_goal + spread / 10 * seeds
        return Returns(task, method, rollouts, rates, env_steps, values)

    rise = after - before
    return [
        returns("maml", [before, after, after + 0.05 * rise, after + 0.08 * rise], RATES, 8_000_000),
        returns(
            "pretrained", [before, before + 0.1 * rise, before + 0.15 * rise, before + 0.2 * rise], RATES, 8_000_000
        ),
        returns("random", [before - 5, before - 4, before - 2, before], RATES, 0),
        returns("oracle", [oracle], (), 4_000_000),
    ]


def made_up_settings(task):
    trained = {"hidden": [64, 64], "activation": "tanh", "timing": "paper", "gamma": 0.99, "meta_batch": 40}
    trained |= {"kl_bound": 0.02 if task == "cheetah_dir" else 0.01, "versions": {"torch": "2"}}
    counts = {"n_broken": 3, "n_line_search_failures": 1, "n_singular_fits": 0}
    return {
        "maml": {**trained, "estimator": "ratio", "best_meta_step": [40, 60], **counts},
        "pretrained": {**trained, "n_broken": 0},
        "random": {},
        "oracle": {**trained, "observation_scales": "none"},
    }


def made_up_speeds(task):
    """Speeds that rise to the goal after adaptation; the untrained ant falls."""
    goals = torch.tensor(GOALS[task])[:, None]
    time = torch.arange(201) / 200
    noise = 0.1 * torch.randn(3, len(goals), 201, generator=generator(0, f"made-up speeds, {task}"))
    random = noise[0].clone()
    if task.startswith("ant"):
        random[0, 60:] = torch.nan
    before, after = noise[1] + 0.2 * time, noise[2] + goals * (1 - torch.exp(-5 * time))
    seconds = 0.02 if task.startswith("ant") else 0.01
    return Speeds(task, goals, seconds, {("random", 0): random, ("maml", 0): before, ("maml", 1): after})


def write_curves(folder: Path, before, after, oracle, n=60):
    """Curves that rise like 1 - exp(-3 t), with a validation return every tenth meta-step."""
    rise = 1 - np.exp(-3 * np.arange(n) / n)
    start = before - 0.5 * abs(after - before)
    steps = {"env_steps": 160_000 * np.arange(1, n + 1), "meta_step": np.arange(1, n + 1)}

    def table(**curves):
        last = list(curves.values())[-1]
        validation = np.where(np.arange(n) % 10 == 9, last, np.nan)
        return pd.DataFrame({**steps, **curves, "validation_return": validation}).to_csv(sep="\t", index=False)

    write_text(
        folder / "maml" / "curves.tsv",
        table(return_before=start + 0.6 * rise * (before - start), return_after=start + rise * (after - start)),
    )
    baselines = folder / "baselines"
    write_text(baselines / "pretrained-curves.tsv", table(**{"return": start + rise * (before - start)}))
    write_text(baselines / "oracle-curves.tsv", table(**{"return": start + rise * (oracle - start)}))
