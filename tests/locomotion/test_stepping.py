"""Compiled stepping against MuJoCo's ``Batch``: the same bytes."""

import math

import pytest
import torch

from metalib.compilation import native
from metalib.locomotion import native_stepping, simulation
from metalib.locomotion.bodies import TIMINGS, load_body
from metalib.locomotion.collector import collect
from metalib.locomotion.families import FAMILIES
from metalib.locomotion.native_stepping import NativeStepper, load_library
from metalib.locomotion.policy import GaussianPolicy
from metalib.locomotion.simulation import LocomotionSimulation
from metalib.locomotion.stepping import BatchStepper
from metalib.locomotion.trajectories import Trajectories
from metalib.randomness import generator

BODIES = 6
needs_compiler = pytest.mark.skipif(native.compiler() is None, reason="no C++ compiler here")


@pytest.fixture(name="library")
def _library():
    library = load_library()
    assert library is not None
    return library


def both(family, timing, library, threads=1):
    """The same bodies on compiled code and on ``Batch``, started."""
    body = load_body(family.body, timing)
    steppers = NativeStepper(library, body, BODIES, threads), BatchStepper(body, BODIES, threads)
    made = [LocomotionSimulation(family, body, stepper) for stepper in steppers]
    for each in made:
        start(each, generator(0, "start"))
    return made


def start(each, numbers, ids=None):
    n = BODIES if ids is None else len(ids)
    each.reset(torch.randn(n, each.family.start_noise_size, generator=numbers), torch.ones(n, 1), ids)


def assert_same(one, other):
    for mine, its in zip(everything(one), everything(other), strict=True):
        assert torch.equal(bits(mine), bits(its))


def everything(each):
    squared = each._sensing.squared_contact
    return [each.positions, each._qvel, each.velocity, each.observe(), *([] if squared is None else [squared])]


def bits(tensor):
    """The bytes of a tensor, for which a number that is none equals itself and zero has a sign."""
    return tensor.contiguous().view(torch.uint8)


@needs_compiler
@pytest.mark.parametrize("timing", TIMINGS)
@pytest.mark.parametrize("name", ["cheetah_vel", "ant_vel"])
@pytest.mark.parametrize("threads", [1, 3])
def test_states_observations_and_rewards_are_those_of_batch(library, name, timing, threads):
    one, other = both(FAMILIES[name], timing, library, threads)
    numbers = generator(1, "actions")
    touched = fallen = 0
    for time in range(120):
        actions = 1.5 * torch.randn(BODIES, one.family.action_size, generator=numbers)
        ids = torch.tensor([0, 3, 4]) if time % 5 == 4 else None
        mine, its = (each.step(actions, ids) for each in (one, other))
        assert torch.equal(mine.rewards, its.rewards)
        assert_same(one, other)
        if time % 40 == 30:  # some start anew, one after a state written by hand
            for each in (one, other):
                each.positions[2, 2] += 0.25
                start(each, generator(time, "start"), torch.tensor([1, 5]))
            assert_same(one, other)
        if mine.ended is not None and its.ended is not None:
            assert torch.equal(mine.ended, its.ended)
            fallen += int(mine.ended.sum())
            touched += int((one._sensing.squared_contact > 0).sum())
    if name == "ant_vel":
        assert fallen > 5
        assert 100 < touched < 120 * BODIES  # with and without contact


def step_both(made, numbers, ids=None):
    """Step both simulations under the same random actions; return how many ants of one touch something."""
    actions = 1.5 * torch.randn(BODIES, made[0].family.action_size, generator=numbers)
    for each in made:
        each.step(actions, ids)
    assert_same(*made)
    return int((made[0]._sensing.squared_contact > 0).sum())


@needs_compiler
@pytest.mark.parametrize("timing", TIMINGS)
@pytest.mark.parametrize("rewritten", [["positions"], ["_qvel"], ["positions", "_qvel"]])
def test_what_is_kept_of_an_ant_is_not_used_for_another_state(library, timing, rewritten):
    made = both(FAMILIES["ant_vel"], timing, library)
    numbers = generator(1, "actions")
    touched = 0
    for time in range(60):
        for each in made:
            for name in rewritten:
                getattr(each, name)[time % BODIES, -1] += 0.02
        touched += step_both(made, numbers)
    assert 50 < touched < 60 * BODIES - 50  # with and without contact


@needs_compiler
@pytest.mark.parametrize("seed", range(4))
def test_what_is_kept_of_an_ant_serves_every_thread(library, seed):
    family, body = FAMILIES["ant_vel"], load_body("ant")
    steppers = NativeStepper(library, body, BODIES, threads=3), BatchStepper(body, BODIES, threads=3)
    made = [LocomotionSimulation(family, body, stepper) for stepper in steppers]
    for number in range(BODIES):  # one at a time, so by the first thread: the others have computed nothing yet
        for each in made:
            start(each, generator(seed, "start", number), torch.tensor([number]))
    numbers = generator(seed, "actions")
    touched = 0
    for ids in 5 * [None, torch.tensor([5]), torch.tensor([1, 2, 3, 4, 5]), torch.tensor([0, 5])]:
        touched += step_both(made, numbers, ids)
    assert 20 < touched < 100


@needs_compiler
def test_what_is_kept_of_an_ant_does_not_outlast_a_restart(library):
    made = both(FAMILIES["ant_vel"], "paper", library)
    numbers = generator(1, "actions")
    for time in range(60):
        step_both(made, numbers)
        for each in made:
            if time % 7 == 3:
                each._stepper.restart(torch.tensor([1, 4]))
            if time % 7 == 5:
                start(each, generator(time, "start"), torch.tensor([2, 3]))
                each.positions[3] = each.positions[0]


@needs_compiler
@pytest.mark.parametrize("name", ["cheetah_vel", "ant_vel"])
@pytest.mark.parametrize("wrong", [math.nan, math.inf, 1e12])
def test_a_body_that_breaks_down_breaks_alone_and_equally(library, name, wrong, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # Batch writes MUJOCO_LOG.TXT
    one, other = both(FAMILIES[name], "paper", library)
    numbers = generator(1, "actions")
    for time in range(12):
        if time == 4:
            for each in (one, other):
                each.positions[3, 4] = wrong
        actions = torch.randn(BODIES, one.family.action_size, generator=numbers)
        mine, its = (each.step(actions).rewards for each in (one, other))
        assert torch.equal(mine.isfinite(), its.isfinite())
        sound = torch.tensor([0, 1, 2, 4, 5])
        assert mine[sound].isfinite().all()
        assert torch.equal(mine[sound], its[sound])
        assert torch.equal(one.observe()[sound], other.observe()[sound])
    for each in (one, other):  # a body that broke down can start anew
        start(each, generator(2, "start"), torch.tensor([3]))
    mine, its = (each.step(actions) for each in (one, other))
    assert mine.rewards.isfinite().all()
    assert torch.equal(mine.rewards, its.rewards)
    assert_same(one, other)


@needs_compiler
@pytest.mark.parametrize("timing", TIMINGS)
@pytest.mark.parametrize("name", ["cheetah_dir", "ant_dir"])
def test_rollouts_are_those_of_batch(name, timing, monkeypatch):
    family = FAMILIES[name]
    policy = GaussianPolicy((family.observation_size, 10, family.action_size))
    thetas = torch.stack([policy.initial_theta(generator(0, "theta", task), 1.0) for task in range(4)])
    thetas[2, 0] = math.nan  # its rollouts end at once

    def run(threads):
        goals = family.draw_goals(generator(0, "goals"), 4)
        numbers = generator(0, "rollouts")
        return collect(family, policy, thetas, goals, 3, 60, numbers, timing=timing, threads=threads)

    compiled = run(2)
    monkeypatch.setattr(simulation, "load_library", lambda: None)
    plain = run(2)
    for field, mine, its in zip(Trajectories._fields, compiled, plain, strict=True):
        assert torch.equal(mine, its), field
    assert compiled.non_finite[2].all()
    assert compiled.ended.any() == (family.body == "ant")


def test_without_a_compiler_bodies_are_stepped_by_batch(monkeypatch):
    native_stepping._load_library.cache_clear()
    monkeypatch.setattr(native, "compiler", lambda: None)
    try:
        made = simulation.make_simulation(FAMILIES["ant_vel"], 2)
    finally:
        native_stepping._load_library.cache_clear()
    assert isinstance(made._stepper, BatchStepper)


@needs_compiler
def test_with_a_compiler_bodies_are_stepped_by_compiled_code():
    made = simulation.make_simulation(FAMILIES["ant_vel"], 2)
    assert isinstance(made._stepper, NativeStepper)


WRONG_IDS = [[0, BODIES], [-1], [2, 2], [3, 1], [[1]]]


@needs_compiler
@pytest.mark.parametrize("ids", [*map(torch.tensor, WRONG_IDS), torch.ones(BODIES, dtype=torch.bool)])
def test_bodies_that_there_are_not_are_refused(library, ids):
    stepper = NativeStepper(library, load_body("ant"), BODIES, 1)
    for function in (stepper.restart, stepper.forward, stepper.step):
        with pytest.raises(ValueError, match="ids must be int64, ascending, from 0 to 5; got"):
            function(ids)
        function(torch.tensor([], dtype=torch.int64))


@needs_compiler
@pytest.mark.parametrize("name", ["cheetah_vel", "ant_vel"])
@pytest.mark.parametrize("ids", WRONG_IDS)
def test_a_reset_that_is_refused_changes_nothing(library, name, ids):
    made, twins = (both(FAMILIES[name], "paper", library) for _ in range(2))
    numbers = generator(1, "actions")
    noise, goals = torch.zeros(len(ids), made[0].family.start_noise_size), torch.zeros(len(ids), 1)
    for _ in range(5):
        for each in made:
            with pytest.raises(ValueError, match="ids must be"):
                each.reset(noise, goals, torch.tensor(ids))
        actions = torch.randn(BODIES, made[0].family.action_size, generator=numbers)
        for each, twin in zip(made, twins, strict=True):
            assert_same(each, twin)
            assert torch.equal(each.step(actions).rewards, twin.step(actions).rewards)
