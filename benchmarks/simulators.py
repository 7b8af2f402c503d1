"""Programs that step bodies, each measured in a process of its own by :mod:`benchmarks.simulation`."""

import copy
import time
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.machine import peak_resident_mib
from metalib.locomotion.bodies import load_body
from metalib.locomotion.collector import collect, episode_noise
from metalib.locomotion.families import FAMILIES
from metalib.locomotion.physics import Batch, mujoco
from metalib.locomotion.policy import GaussianPolicy
from metalib.locomotion.simulation import POSITION_NOISE, VELOCITY_NOISE
from metalib.locomotion.tasks import LocomotionFamily
from metalib.locomotion.trajectories import Trajectories
from metalib.randomness import generator

HIDDEN = (100, 100)
GYMNASIUM_IDS = {"cheetah": "HalfCheetah-v5", "ant": "Ant-v5"}


def metalib_and_limit(
    family: str, timing: str, tasks: int, rollouts: int, horizon: int, repeats: int, threads: int
) -> dict[str, Any]:
    """Time the collector, and the bare ``Batch`` on the same starts and actions, in turn.

    The limit computes nothing but the next states: no policy, no observation, no reward. It takes the very steps that
    the collector took, ants that fell staying out.

    Returns:
        steps (of one collection), seconds and limit_seconds (samples), and the peak of resident memory.
    """
    chosen = FAMILIES[family]
    assert isinstance(chosen, LocomotionFamily)
    policy = GaussianPolicy((chosen.observation_size, *HIDDEN, chosen.action_size))
    thetas = torch.stack([policy.initial_theta(generator(0, "theta", task)) for task in range(tasks)])
    goals = chosen.draw_goals(generator(0, "goals"), tasks)
    seconds: list[float] = []
    limit_seconds: list[float] = []
    peak = 0.0
    for _ in range(repeats + 1):  # the first to warm up
        began = time.perf_counter()
        found = collect(
            chosen, policy, thetas, goals, rollouts, horizon, generator(0, "rollouts"), timing=timing, threads=threads
        )
        seconds.append(time.perf_counter() - began)
        peak = peak or peak_resident_mib()
        limit_seconds.append(_bare(chosen, timing, found, threads))
    steps = int(found.mask.sum())
    return {"steps": steps, "seconds": seconds[1:], "limit_seconds": limit_seconds[1:], "peak_resident_mib": peak}


def _bare(family: LocomotionFamily, timing: str, taken: Trajectories, threads: int) -> float:
    """Return the seconds that ``Batch`` takes for the steps of ``taken``."""
    body = load_body(family.body, timing)
    actions = taken.actions.flatten(0, 1).clamp(-1, 1).transpose(0, 1).double().contiguous().numpy()
    mask = taken.mask.flatten(0, 1).numpy()
    model = copy.copy(body.model)
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_SENSOR.value  # sensors are for observations
    batch = Batch(model, len(mask), threads)
    noise = episode_noise(generator(0, "rollouts"), taken, family.start_noise_size).double().numpy()
    batch.bind("qpos")[:] = body.start + POSITION_NOISE * noise[:, : body.model.nq]
    batch.bind("qvel")[:] = VELOCITY_NOISE * noise[:, body.model.nq :]
    controls = batch.bind("ctrl")
    moving = [None if column.all() else np.flatnonzero(column) for column in mask.T]
    began = time.perf_counter()
    for action, ids in zip(actions, moving, strict=True):
        controls[:] = action
        if ids is None or len(ids):
            batch.step(ids, nstep=body.substeps)
    return time.perf_counter() - began


def gymnasium_vector(body: str, kind: str, n_bodies: int, steps: int, repeats: int, threads: int) -> dict[str, Any]:
    """Time Gymnasium's own environments under random actions: ``kind`` is sync or async (a process for each body)."""
    envs = gymnasium.make_vec(GYMNASIUM_IDS[body], num_envs=n_bodies, vectorization_mode=kind)
    try:
        return _time_steps(envs, envs.action_space.shape or (), steps, repeats)
    finally:
        envs.close()


def envpool_vector(body: str, n_bodies: int, steps: int, repeats: int, threads: int) -> dict[str, Any]:
    """Time EnvPool's environments under random actions, on as many of its threads."""
    import envpool  # noqa: PLC0415 (an optional peer)

    envs = envpool.make_gymnasium(GYMNASIUM_IDS[body], num_envs=n_bodies, num_threads=threads)
    return _time_steps(envs, (n_bodies, *envs.action_space.shape), steps, repeats)


def _time_steps(envs: Any, shape: tuple[int, ...], steps: int, repeats: int) -> dict[str, Any]:
    envs.reset()
    actions: NDArray[np.float32] = np.random.default_rng(0).uniform(-1, 1, (steps, *shape)).astype(np.float32)

    def run() -> float:
        began = time.perf_counter()
        for action in actions:
            envs.step(action)
        return time.perf_counter() - began

    return {"steps": steps * shape[0], "seconds": _after_warming_up(run, repeats)}


def _after_warming_up(run: Callable[[], float], repeats: int) -> list[float]:
    run()
    return [run() for _ in range(repeats)]
