"""The half-cheetah and the ant: Gymnasium's own MJCF files, edited through ``MjSpec``, never copied."""

from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metalib.locomotion.physics import mujoco

BODIES = ("cheetah", "ant")
TIMINGS = ("paper", "gymnasium")

_FILES = {"cheetah": "half_cheetah.xml", "ant": "ant.xml"}
_PAPER_TIMESTEP = {"cheetah": 0.01, "ant": 0.02}
_GYMNASIUM_SUBSTEPS = 5
_CHEETAH_MASS = 14.0
_ORIGINAL_ANT_SOLIMP = (0.8, 0.8, 0.01, 0.5, 2.0)
_ARENA_BYTES = 2**20
"""For contacts and constraints of one body; the ant on its back takes 60 kB, and 800 bodies must not take 11 GB."""


@dataclass(frozen=True, eq=False)
class Body:
    """A compiled body and how it is stepped.

    Args:
        name: of :data:`BODIES`.
        timing: of :data:`TIMINGS`.
        model: the compiled model; shared, so not to be changed.
        substeps: simulation steps for one action.
        start: joint positions ``[nq]`` before the noise of a reset.
    """

    name: str
    timing: str
    model: "mujoco.MjModel"
    substeps: int
    start: NDArray[np.float64]

    @property
    def seconds(self) -> float:
        """The time that one action lasts."""
        return float(self.model.opt.timestep) * self.substeps


@lru_cache
def load_body(name: str, timing: str = "paper") -> Body:
    """Return a body under a timing.

    ``paper``: one simulation step an action, of 0.01 s (cheetah) or 0.02 s (ant), as in cbfinn/maml_rl. The ant there
    has contacts with solimp .8 .8 .01 and starts crouched; both are edited in here. Its motors have gear 1 and a
    range of 150 N m, Gymnasium's gear 150 and a range of 1: the same torque for the same action in [-1, 1]. What
    remains different is the engine: the original is MuJoCo 1.31.

    ``gymnasium``: five steps of 0.01 s an action, bodies and starting poses of HalfCheetah-v5 and Ant-v5.

    Raises:
        ValueError: the body or the timing is unknown.
    """
    _refuse_unknown("body", name, BODIES)
    _refuse_unknown("timing", timing, TIMINGS)
    spec = mujoco.MjSpec.from_file(str(_assets() / _FILES[name]))
    spec.memory = _ARENA_BYTES
    # Islands cost 4% (cheetah) to 8% (ant) and change no bit of a body that is one island.
    spec.option.disableflags |= mujoco.mjtDisableBit.mjDSBL_ISLAND
    # A state that is no longer finite must be seen, not silently replaced by the start.
    spec.option.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
    if timing == "paper":
        spec.option.timestep = _PAPER_TIMESTEP[name]
    model = _compile_cheetah(spec) if name == "cheetah" else _compile_ant(spec, timing)
    substeps = 1 if timing == "paper" else _GYMNASIUM_SUBSTEPS
    return Body(name, timing, model, substeps, _start(model, name, timing))


def _compile_cheetah(spec: "mujoco.MjSpec") -> "mujoco.MjModel":
    # The attribute settotalmass is deprecated and warns at every load; this gives the same arrays without it.
    spec.compiler.settotalmass = -1
    model = spec.compile()
    mujoco.mj_setTotalmass(model, _CHEETAH_MASS)
    mujoco.mj_setConst(model, mujoco.MjData(model))
    return model


def _compile_ant(spec: "mujoco.MjSpec", timing: str) -> "mujoco.MjModel":
    torso = spec.body("torso")
    spec.add_sensor(
        type=mujoco.mjtSensor.mjSENS_SUBTREELINVEL,
        objtype=mujoco.mjtObj.mjOBJ_BODY,
        objname=torso.name,
        name="velocity",
    )
    # Nobody reads the accelerometer; its presence makes MuJoCo compute contact forces (cfrc_ext).
    torso.add_site(name="accelerometer")
    spec.add_sensor(
        type=mujoco.mjtSensor.mjSENS_ACCELEROMETER, objtype=mujoco.mjtObj.mjOBJ_SITE, objname="accelerometer"
    )
    if timing == "paper":
        for geom in spec.geoms:
            geom.solimp = _ORIGINAL_ANT_SOLIMP
    return spec.compile()


def _start(model: "mujoco.MjModel", name: str, timing: str) -> NDArray[np.float64]:
    if name == "ant" and timing == "paper":
        # Gymnasium's file carries the original's crouched pose along, but Gymnasium does not use it.
        crouched: NDArray[np.float64] = model.numeric("init_qpos").data.copy()
        return crouched
    start: NDArray[np.float64] = model.qpos0.copy()
    return start


def _assets() -> Path:
    found = find_spec("gymnasium")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "envs" / "mujoco" / "assets"


def _refuse_unknown(kind: str, given: str, known: tuple[str, ...]) -> None:
    if given not in known:
        raise ValueError(f"unknown {kind} {given!r}; known: {', '.join(known)}")
