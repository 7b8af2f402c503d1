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
ROLLOUTS = {20: 1.0, 40: 1.1}
"""By K, what a gradient step is worth, as a share of what it is worth with the smallest."""
RATES = (0.1, 0.05, 0.05)


def write_made_up_results(artifacts: Path, tasks=TASKS, n_seeds=2, videos=True):
    """Write everything that the report reads of ``tasks``."""
    for task in tasks:
        scores = artifacts / task / "scores"
        save_returns(scores / "returns.safetensors", made_up_returns(task, n_seeds), made_up_settings(task, n_seeds))
        rates = {"0.05": -90.0, "0.1": -80.25, "1.0": None, "chosen": 0.1}
        write_checked_json(scores / "rates.json", POLICY_RATES_SCHEMA, {"pretrained": rates, "random": rates})
        if task in GOALS:
            save_speeds(scores / "speeds.safetensors", made_up_speeds(task))
        if videos:
            frames = [Image.new("RGB", (60, 40), (0, 40 * i, 0)) for i in range(4)]
            save_animation(scores / "video.webp", frames, 8)
        write_curves(artifacts / task, *BEFORE_AND_AFTER[task], pretraining=24 if task == "ant_vel" else 0)


def made_up_returns(task, n_seeds=2, n_goals=40):
    """Every method at every K. Goals differ by a tenth of the largest return; seeds by a tenth of that."""
    before, after, oracle = BEFORE_AND_AFTER[task]
    spread = max(abs(before), abs(after)) / 10
    numbers = generator(0, f"made-up returns, {task}")
    by_goal = spread * torch.randn(1, n_goals, 1, generator=numbers, dtype=torch.float64)

    def returns(method, rollouts, start, rises, env_steps):
        means = start + ROLLOUTS[rollouts] * torch.tensor([0.0, *rises], dtype=torch.float64)
        seeds = torch.randn(n_seeds, n_goals, len(means), generator=numbers, dtype=torch.float64)
        values = means + by_goal + spread / 10 * seeds
        return Returns(task, method, rollouts, RATES[: len(rises)], env_steps, values)

    rise = after - before
    found = []
    for k in ROLLOUTS:
        found.append(returns("maml", k, before, [rise, 1.05 * rise, 1.08 * rise], 8_000_000))
        found.append(returns("pretrained", k, before, [0.1 * rise, 0.15 * rise, 0.2 * rise], 8_000_000))
        found.append(returns("random", k, before - 5, [1, 3, 5], 0))
        found.append(returns("oracle", k, oracle, [], 4_000_000))
    return found


def made_up_settings(task, n_seeds=2):
    """What training leaves of each method; the random policy took no meta-steps."""
    body = task.split("_")[0]
    policy = {"hidden": [64, 64], "activation": "tanh", "timing": "paper", "horizon": 200, "initial_output_scale": 0.1}
    policy |= {"initial_log_std": {"ant_vel": -0.5, "ant_dir": -1.0}.get(task, 0.0)}
    policy |= {"observation_scale": {"velocities": 0.1, "contact_forces": 0.0} if body == "ant" else {}}
    loop = {"meta_batch": 20, "gamma": 0.99, "rollouts": 20, "kl_bound": 0.02 if body == "ant" else 0.01}
    loop |= {"lam": 0.9 if task == "ant_vel" else 0.95}
    rest = {"pretraining_steps": None, "rule": None, "surrogate": "likelihood_ratio", "versions": {"torch": "2"}}
    none = {"non_finite_rollouts": 0, "singular_baseline_fits": 0, "failed_line_searches": 0}
    some = {"non_finite_rollouts": 3, "singular_baseline_fits": 0, "failed_line_searches": 1}
    rule = {"kind": "gradient_descent", "rate": 0.1, "first_order": False}
    trained = {**policy, **loop, **rest, "meta_steps": 60, "best_meta_step": [40, 60][:n_seeds]}
    return {
        "maml": {**trained, "pretraining_steps": 24 if task == "ant_vel" else 0, "rule": rule, **some},
        "pretrained": {**trained, **none},
        "random": {**policy, **loop, **rest, **none, "meta_steps": 0, "best_meta_step": [0] * n_seeds},
        "oracle": {**trained, "meta_steps": 50, **none},
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


def write_curves(folder: Path, before, after, oracle, n=60, pretraining=0):
    """Curves that rise like 1 - exp(-3 t), with a validation return every tenth meta-step."""
    rise = 1 - np.exp(-3 * np.arange(n) / n)
    start = before - 0.5 * abs(after - before)
    steps = {"env_steps": 160_000 * np.arange(1, n + 1), "meta_step": np.arange(1, n + 1)}

    def table(**curves):
        last = list(curves.values())[-1]
        validation = np.where(np.arange(n) % 10 == 9, last, np.nan)
        columns = {**steps, **curves, "validation_return": validation}
        return pd.DataFrame(columns).to_csv(sep="\t", index=False, na_rep="NaN")

    adapted = np.where(np.arange(n) < pretraining, np.nan, start + rise * (after - start))
    maml = table(return_before=start + 0.6 * rise * (before - start), return_after=adapted)
    write_text(folder / "maml" / "curves.tsv", maml)
    baselines = folder / "baselines"
    write_text(baselines / "pretrained-curves.tsv", table(**{"return": start + rise * (before - start)}))
    write_text(baselines / "oracle-curves.tsv", table(**{"return": start + rise * (oracle - start)}))
