"""Single rollouts of policies before and after adaptation: their speeds for the report, and a film where one can be."""

import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from metalib.locomotion.families import Family
from metalib.locomotion.recording import Recording, film, record, speeds_until_end
from metalib.locomotion.rendering import RenderingError
from metalib.locomotion.tasks import LocomotionFamily
from metalib.randomness import generator
from metalib.return_files import Speeds, save_speeds
from metalib.trained_policy import TrainedPolicy
from metalib.update_rules import UpdateRule

LARGEST_FILM = 250_000
"""Bytes; five films of this size leave the report page below 3 MB."""
SHOWN = (("random", 0), ("maml", 0), ("maml", 1))
"""Methods and numbers of gradient steps."""
_TITLES = {("random", 0): "random policy", ("maml", 0): "MAML, before", ("maml", 1): "MAML, one step"}


def draw_adaptation(
    folder: Path,
    policies: Mapping[str, TrainedPolicy],
    rules: Mapping[str, UpdateRule],
    goals: Tensor,
    seed: int,
    threads: int,
) -> None:
    """Record one rollout of every shown policy on two goals; write speeds.safetensors and, if it can be, video.webp.

    Args:
        folder: where to write.
        policies: by method.
        rules: how each adapts.
        goals: of the test, ``[goal, goal_size]``.
        seed: of the rollouts.
        threads: that step bodies.
    """
    family = policies["maml"].family
    shown = goals[list(_shown_goals(family, goals))]
    recordings = {
        (method, step): _recorded(policies[method], rules[method], shown, step, seed, threads) for method, step in SHOWN
    }
    first = recordings[SHOWN[0]]
    speeds = {key: speeds_until_end(recording) for key, recording in recordings.items()}
    save_speeds(folder / "speeds.safetensors", Speeds(family.name, shown, first.seconds, speeds))
    _film(folder / "video.webp", recordings, len(shown))


def _shown_goals(family: Family, goals: Tensor) -> tuple[int, int]:
    """Return the places of two goals that differ: the two directions; else those a fifth from either end."""
    order = goals[:, 0].argsort(stable=True).tolist()
    share = 0 if isinstance(family, LocomotionFamily) and family.goal == "direction" else len(order) // 5
    return order[share], order[-1 - share]


def _recorded(
    trained: TrainedPolicy, rule: UpdateRule, goals: Tensor, steps: int, seed: int, threads: int
) -> Recording:
    adaptation = trained.adaptation(rule, threads=threads)
    thetas = adaptation.adapted(
        trained.phi[0], goals, steps, lambda step: generator(seed, f"pictured adaptation, iterate {step}")
    )
    return record(
        trained.family,
        trained.policy,
        thetas,
        goals,
        trained.horizon,
        generator(seed, "pictured rollouts"),
        trained.timing,
        trained.view,
    )


def _film(path: Path, recordings: Mapping[tuple[str, int], Recording], n_goals: int) -> None:
    """Write the film, a row for each goal; where nothing can draw, say so and go on: the speeds are plotted anyway."""
    order = [(key, goal) for goal in range(n_goals) for key in recordings]
    whole = _joined([(recordings[key], goal) for key, goal in order])
    titles = [_TITLES[key] for key, _ in order]
    try:
        film(whole, path, titles, columns=len(recordings), width=200, frame_seconds=0.12, largest=LARGEST_FILM)
    except RenderingError as error:
        path.unlink(missing_ok=True)
        print(f"note: no film was made: {error}", file=sys.stderr)


def _joined(parts: list[tuple[Recording, int]]) -> Recording:
    """Return single rollouts of several recordings as one recording."""
    first = parts[0][0]

    def rows(name: str) -> Tensor:
        return torch.stack([getattr(recording, name)[goal] for recording, goal in parts])

    trajectories = type(first.trajectories)(
        *(
            torch.stack([recording.trajectories[part][goal] for recording, goal in parts])
            for part in range(len(first.trajectories))
        )
    )
    return first._replace(
        goals=rows("goals"), positions=rows("positions"), velocity=rows("velocity"), trajectories=trajectories
    )
