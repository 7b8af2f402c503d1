"""The task families as Gymnasium environments; the vector form is the batched simulation.

``import metalib.locomotion.gymnasium_envs`` registers ``metalib/CheetahVel-v0``, ``CheetahDir-v0``, ``AntVel-v0``,
``AntDir-v0`` and ``PointNavigation-v0``. Body i of the vector form, reset with seed s, is the single form reset with
seed s + i, bit for bit. Observations, goals and infos are copies, never live views.
"""

import operator
from collections.abc import Iterable, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from metalib.locomotion.families import FAMILIES, family_named
from metalib.locomotion.numpy_bodies import Goal, Numbers, NumpyBodies
from metalib.locomotion.rendering import Frame

IDS = {
    "metalib/CheetahVel-v0": "cheetah_vel",
    "metalib/CheetahDir-v0": "cheetah_dir",
    "metalib/AntVel-v0": "ant_vel",
    "metalib/AntDir-v0": "ant_dir",
    "metalib/PointNavigation-v0": "point_navigation",
}

_RENDER_MODES = ["rgb_array"]


class LocomotionEnv(gymnasium.Env[Numbers, Numbers]):
    """One body with one goal.

    Args:
        family: of :data:`metalib.locomotion.families.FAMILIES`.
        goal: a number (for point navigation two); None draws one at every reset.
        timing: of :data:`metalib.locomotion.bodies.TIMINGS`; ``paper`` is the default.
        render_mode: ``rgb_array`` or None.

    ``info`` holds ``goal``, ``velocity`` (m/s along x) and ``non_finite`` (whether the simulation broke down, which
    ends the episode).

    Raises:
        ValueError: an unknown family or timing, a goal that the family does not have, an action of another shape.
    """

    metadata = {"render_modes": _RENDER_MODES, "render_fps": 50}  # noqa: RUF012 (Gymnasium's own way)

    def __init__(self, family: str, goal: Goal = None, timing: str = "paper", render_mode: str | None = None) -> None:
        self._bodies = NumpyBodies(family_named(family), 1, goal, timing, 1, render_mode is not None)
        self.metadata = {**self.metadata, "render_fps": self._bodies.frames_per_second}
        self.render_mode = _check_render_mode(render_mode)
        observations, actions = self._bodies.spaces()
        self.observation_space: gymnasium.Space[Any] = observations
        self.action_space: gymnasium.Space[Any] = actions

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Numbers, dict[str, Any]]:
        """Start anew; ``options`` are not used."""
        super().reset(seed=seed)
        self._bodies.reset([0], [self.np_random])
        return self._bodies.observations()[0], self._info()

    def step(self, action: Numbers) -> tuple[Numbers, float, bool, bool, dict[str, Any]]:
        """Take an action ``[action_size]``, clipped to its bounds; see :class:`gymnasium.Env`."""
        _check_actions(action, (self._bodies.family.action_size,))
        rewards, terminated = self._bodies.step(np.asarray(action)[None], None)
        return self._bodies.observations()[0], float(rewards[0]), bool(terminated[0]), False, self._info()

    def render(self) -> Frame | None:
        """Return the current picture ``[240, 320, 3]``; None without a render mode."""
        return None if self.render_mode is None else self._bodies.pictures([0])[0]

    def close(self) -> None:
        """Give graphics memory back."""
        self._bodies.close()

    def _info(self) -> dict[str, Any]:
        infos = {name: values[0] for name, values in self._bodies.infos().items()}
        return {name: value.item() if value.ndim == 0 else value for name, value in infos.items()}


class LocomotionVectorEnv(VectorEnv[Numbers, Numbers, NDArray[Any]]):
    """Many bodies stepped together.

    Args:
        family: of :data:`metalib.locomotion.families.FAMILIES`.
        num_envs: how many bodies.
        max_episode_steps: the horizon; None for no limit.
        goal: one for all, or one for each body; None draws one at every reset of a body.
        timing: of :data:`metalib.locomotion.bodies.TIMINGS`.
        threads: that step the bodies.
        autoreset_mode: of :class:`gymnasium.vector.AutoresetMode`, or its value, e.g. ``"SameStep"``.
        render_mode: ``rgb_array`` or None.

    Raises:
        ValueError: as :class:`LocomotionEnv`, or a horizon or number of bodies below 1.
    """

    metadata = {"render_modes": _RENDER_MODES, "render_fps": 50, "autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(
        self,
        family: str,
        num_envs: int = 1,
        max_episode_steps: int | None = None,
        goal: Goal = None,
        timing: str = "paper",
        threads: int = 1,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
    ) -> None:
        if max_episode_steps is not None and max_episode_steps < 1:
            raise ValueError(f"max_episode_steps must be 1 or more, got {max_episode_steps}")
        self._bodies = NumpyBodies(family_named(family), num_envs, goal, timing, threads, render_mode is not None)
        self._mode, self._horizon = AutoresetMode(autoreset_mode), max_episode_steps
        rate = self._bodies.frames_per_second
        self.metadata = {**self.metadata, "render_fps": rate, "autoreset_mode": self._mode}
        self.render_mode = _check_render_mode(render_mode)
        self.num_envs = num_envs
        self.single_observation_space, self.single_action_space = self._bodies.spaces()
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._generators: list[np.random.Generator] = []
        self._steps = np.zeros(num_envs, dtype=np.int64)
        self._over = np.ones(num_envs, dtype=np.bool_)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Numbers, dict[str, Any]]:
        """Start all bodies anew, or those of ``options["reset_mask"]`` ``[num_envs]``.

        Args:
            seed: body i gets seed + i; or a list of seeds; None goes on with the numbers of before.
            options: ``reset_mask`` or nothing.
        """
        mask = _reset_mask(options, self.num_envs)
        self._seed(seed, mask)
        self._restart(mask)
        return self._bodies.observations(), self._infos(mask)

    def step(
        self, actions: Numbers
    ) -> tuple[Numbers, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Take one action ``[num_envs, action_size]`` with every body; see :class:`gymnasium.vector.VectorEnv`."""
        _check_actions(actions, (self.num_envs, self._bodies.family.action_size))
        if not self._generators:
            raise ValueError("reset the environments before the first step")
        resting = self._over.copy()
        if resting.any() and self._mode is not AutoresetMode.NEXT_STEP:
            raise ValueError(f"{resting.sum()} episodes are over; reset them with options={{'reset_mask': ...}} first")
        rewards, terminations = self._bodies.step(actions, ~resting)
        self._steps += ~resting
        truncations = np.zeros_like(resting) if self._horizon is None else (self._steps >= self._horizon) & ~resting
        self._over = terminations | truncations
        if self._mode is AutoresetMode.NEXT_STEP:
            self._restart(resting)
        if self._mode is AutoresetMode.SAME_STEP and self._over.any():
            return self._restart_in_the_same_step(rewards, terminations, truncations)
        everybody = np.ones(self.num_envs, dtype=np.bool_)
        return self._bodies.observations(), rewards, terminations, truncations, self._infos(everybody)

    def render(self) -> tuple[Frame, ...] | None:
        """Return the current picture of every body; None without a render mode."""
        return None if self.render_mode is None else tuple(self._bodies.pictures(range(self.num_envs)))

    def close_extras(self, **_: Any) -> None:
        """Give graphics memory back."""
        self._bodies.close()

    def _restart_in_the_same_step(
        self, rewards: NDArray[np.float64], terminations: NDArray[np.bool_], truncations: NDArray[np.bool_]
    ) -> tuple[Numbers, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        over = self._over.copy()
        seen = self._bodies.observations()
        final = np.full(self.num_envs, None, dtype=object)
        for index in np.flatnonzero(over):
            final[index] = seen[index]
        ends = {"final_obs": final, "_final_obs": over, "final_info": self._infos(over), "_final_info": over}
        self._restart(over)
        infos = self._infos(np.ones(self.num_envs, dtype=np.bool_))
        return self._bodies.observations(), rewards, terminations, truncations, {**infos, **ends}

    def _seed(self, seed: int | Sequence[int | None] | None, mask: NDArray[np.bool_]) -> None:
        if seed is None:
            seeds: list[int | None] = [None] * self.num_envs
        elif isinstance(seed, Iterable):
            seeds = [None if of_body is None else operator.index(of_body) for of_body in seed]
        else:
            first = operator.index(seed)  # NumPy's integers too; what is no integer is a TypeError
            self._np_random, self._np_random_seed = seeding.np_random(first)
            seeds = [first + index for index in range(self.num_envs)]
        if len(seeds) != self.num_envs:
            raise ValueError(f"one seed a body is needed, got {len(seeds)} for {self.num_envs}")
        if not self._generators:
            self._generators = [seeding.np_random(None)[0] for _ in seeds]
        for index in np.flatnonzero(mask):
            if seeds[index] is not None:
                self._generators[index] = seeding.np_random(seeds[index])[0]

    def _restart(self, mask: NDArray[np.bool_]) -> None:
        indices = np.flatnonzero(mask).tolist()
        if indices:
            self._bodies.reset(indices, [self._generators[index] for index in indices])
            self._steps[mask] = 0
            self._over[mask] = False

    def _infos(self, mask: NDArray[np.bool_]) -> dict[str, Any]:
        infos: dict[str, Any] = {}
        for name, values in self._bodies.infos().items():
            values[~mask] = 0
            infos |= {name: values, f"_{name}": mask.copy()}
        return infos


def _check_actions(actions: Any, shape: tuple[int, ...]) -> None:
    if np.shape(actions) != shape:
        raise ValueError(f"actions must be of shape {shape}, got {np.shape(actions)}")


def _check_render_mode(mode: str | None) -> str | None:
    if mode is not None and mode not in _RENDER_MODES:
        raise ValueError(f"unknown render mode {mode!r}; known: {', '.join(_RENDER_MODES)}, or None")
    return mode


def _reset_mask(options: dict[str, Any] | None, n_bodies: int) -> NDArray[np.bool_]:
    mask = (options or {}).get("reset_mask", np.ones(n_bodies, dtype=np.bool_))
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_ or mask.shape != (n_bodies,) or not mask.any():
        raise ValueError(f"reset_mask must be a NumPy array of {n_bodies} booleans, at least one of them True")
    return mask


def register() -> None:
    """Make the environments known to ``gymnasium.make`` and ``gymnasium.make_vec``; more than once is allowed."""
    for name, family in IDS.items():
        if name not in gymnasium.registry:
            gymnasium.register(
                name,
                entry_point=f"{__name__}:LocomotionEnv",
                vector_entry_point=f"{__name__}:LocomotionVectorEnv",
                max_episode_steps=FAMILIES[family].horizon,
                kwargs={"family": family},
            )


register()
