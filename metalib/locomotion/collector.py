"""Rollouts of many tasks in lockstep, each task with a policy of its own."""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from metalib.locomotion.families import Family
from metalib.locomotion.outcome import Outcome
from metalib.locomotion.policy import Actor, GaussianPolicy
from metalib.locomotion.simulation import Simulation, make_simulation
from metalib.locomotion.trajectories import Trajectories
from metalib.locomotion.view import ObservationView
from metalib.randomness import generator as make_generator
from metalib.threads import available_threads, side_by_side

Watch = Callable[[int, Simulation], None]
"""Called with the time and the simulation before every action and at the end."""


def collect(
    family: Family,
    policy: GaussianPolicy,
    thetas: Tensor,
    goals: Tensor,
    rollouts: int,
    horizon: int,
    generator: torch.Generator,
    *,
    timing: str = "paper",
    threads: int | None = None,
    first_task: int = 0,
    view: ObservationView | None = None,
    watch: Watch | None = None,
) -> Trajectories:
    """Return ``rollouts`` (K) episodes of at most ``horizon`` (H) steps of every task.

    The original collects K * H time steps, so it draws more episodes when ants fall; here K is episodes.

    Noise belongs to (generator, task, rollout) alone: the same generator state gives a rollout the same start and the
    same action noise, whatever else is collected along with it. For the same actions the physics are the same to the
    bit, at any grouping and number of threads. The policy's matrix products may be rounded differently when another
    number of tasks or rollouts is collected together (float32, by about 1e-6 of a layer's largest product), and a
    body in contact with the ground amplifies that. PyTorch's CPU build on x86-64 showed no such difference.

    Each thread steps its own share of the tasks from start to end, so that none waits for the others at every step.

    Args:
        family: what the goals belong to.
        policy: of the sizes of the view and of the family's action.
        thetas: ``[task, n_parameters]``; expand one theta for the same policy in all tasks.
        goals: ``[task, goal_size]``; or ``[task, rollout, goal_size]``, a goal for each rollout.
        rollouts: K.
        horizon: H.
        generator: one number of it is used.
        timing: of :data:`metalib.locomotion.bodies.TIMINGS`.
        threads: as many as this process has processors if None.
        first_task: the number of the first task, where a part of the tasks is collected.
        view: what the policy is shown, and what is stored as its observations; all of them if None.
        watch: looks on; everything then runs on one thread.

    Raises:
        ValueError: sizes that do not fit each other, a goal outside the family's range, K, H or threads below 1.
    """
    threads = available_threads() if threads is None else threads
    view = view or ObservationView.of(family, {})
    _check(family, policy, view, thetas, goals, {"rollouts": rollouts, "horizon": horizon, "threads": threads})
    of_rollouts = goals if goals.ndim == 3 else goals[:, None].expand(-1, rollouts, -1)
    shares = _shares(len(goals), 1 if watch else threads)
    key = _draw_key(generator)
    store = Trajectories.empty(len(goals), rollouts, horizon, policy.observation_size, policy.action_size)

    def run(share: tuple[int, int, int]) -> None:
        first, last, share_threads = share
        part = store.of_tasks(first, last)
        starts = _draw_noise(part.actions, family.start_noise_size, key, first_task + first)
        simulation = make_simulation(family, (last - first) * rollouts, timing, share_threads)
        simulation.reset(starts, of_rollouts[first:last].flatten(0, 1))
        if view.goal_size:
            part.observations[..., -view.goal_size :] = of_rollouts[first:last, :, None]
        _roll_out(simulation, Actor(policy, thetas[first:last], rollouts), view, part, watch)

    with torch.inference_mode():
        # Not everything that is set for a thread reaches the threads it starts.
        side_by_side(torch.inference_mode()(run), shares, len(shares))
        store.clear_padding()
    return store


def _roll_out(
    simulation: Simulation, actor: Actor, view: ObservationView, store: Trajectories, watch: Watch | None
) -> None:
    """Fill ``store``, whose actions hold standard normals, in lockstep."""
    tasks, rollouts = store.mask.shape[:2]
    store.mask.fill_(True)
    running, ids = torch.ones(tasks * rollouts, dtype=torch.bool), None
    columns = zip(store.observations.unbind(2), store.actions.unbind(2), store.rewards.unbind(2), strict=True)
    for time, (observations, actions, rewards) in enumerate(columns):
        if watch:
            watch(time, simulation)
        view.show(simulation.observe().view(tasks, rollouts, -1), observations)
        outcome = simulation.step(actor.act(observations, actions).view(tasks * rollouts, -1), ids)
        rewards.copy_(outcome.rewards.view(tasks, rollouts))
        if _somebody_stopped(outcome, ids):
            _stop(store, running, outcome, time)
            ids = running.nonzero().flatten()
            if not len(ids):
                break
    if watch:
        watch(time + 1, simulation)


def _somebody_stopped(outcome: Outcome, ids: Tensor | None) -> bool:
    """Return whether one of the bodies ``ids`` (all if None) ended or is no longer finite."""
    rewards, ended = outcome
    if ids is not None:
        rewards, ended = rewards[ids], None if ended is None else ended[ids]
    # A sum with a number that is not finite is not finite either.
    return not math.isfinite(rewards.sum().item()) or (ended is not None and bool(ended.any()))


def _stop(store: Trajectories, running: Tensor, outcome: Outcome, time: int) -> None:
    """Take bodies that stopped at ``time`` from ``running`` ``[bodies]``, and note in ``store`` when and why."""
    finite = outcome.rewards.isfinite()
    broken = running & ~finite
    ended = running & finite & outcome.ended if outcome.ended is not None else torch.zeros_like(running)
    running &= ~(broken | ended)
    shape = store.mask.shape[:2]
    store.mask[..., time] &= ~broken.view(shape)
    store.mask[..., time + 1 :] = running.view(*shape, 1)
    store.ended.logical_or_(ended.view(shape))
    store.non_finite.logical_or_(broken.view(shape))


def episode_noise(generator: torch.Generator, taken: Trajectories, start_size: int) -> Tensor:
    """Return the standard normals ``[task * rollout, start_size]`` of the starts that ``collect`` used.

    Args:
        generator: in the state in which :func:`collect` was given it.
        taken: what it returned, for all tasks from the first.
        start_size: the family's ``start_noise_size``.
    """
    return _draw_noise(torch.empty_like(taken.actions), start_size, _draw_key(generator), 0)


def _draw_key(generator: torch.Generator) -> int:
    return int(torch.randint(2**62, (), generator=generator))


def _draw_noise(actions: Tensor, start_size: int, key: int, first_task: int) -> Tensor:
    """Fill ``actions`` ``[task, rollout, time, action]`` with standard normals; return those of the starts.

    Returns:
        ``[task * rollout, start_size]``.
    """
    tasks, rollouts, *episode = actions.shape
    starts = torch.empty(tasks, rollouts, start_size)
    drawn = torch.empty(rollouts, start_size + math.prod(episode))
    for task in range(tasks):
        for rollout, numbers in enumerate(drawn):
            numbers.normal_(generator=make_generator(key, f"task {first_task + task}", rollout))
        starts[task] = drawn[:, :start_size]
        actions[task] = drawn[:, start_size:].view(rollouts, *episode)
    return starts.flatten(0, 1)


def _shares(tasks: int, threads: int) -> list[tuple[int, int, int]]:
    """Return (first task, last task, threads) of each share: contiguous, as even as can be."""
    parts = min(tasks, threads)
    edges = [tasks * part // parts for part in range(parts + 1)]
    return [(first, last, threads // parts) for first, last in pairwise(edges)]


def _check(
    family: Family,
    policy: GaussianPolicy,
    view: ObservationView,
    thetas: Tensor,
    goals: Tensor,
    counts: dict[str, int],
) -> None:
    if (policy.observation_size, policy.action_size) != (view.size, family.action_size):
        raise ValueError(
            f"{family.name} shows {view.size} observations and has {family.action_size} actions, but the "
            f"policy's sizes are {policy.sizes}; its first and last must be these"
        )
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"{name} must be 1 or more, got {value}")
    policy.check_thetas(thetas)
    family.check_goals(goals.flatten(0, 1) if goals.ndim == 3 else goals)
    if goals.ndim == 3 and goals.shape[1] != counts["rollouts"]:
        raise ValueError(f"one goal a rollout is needed, got {goals.shape[1]} for {counts['rollouts']} rollouts")
    if len(thetas) != len(goals):
        raise ValueError(f"one theta a task is needed, got {len(thetas)} thetas and {len(goals)} goals")
