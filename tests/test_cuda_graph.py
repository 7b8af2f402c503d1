"""Steps recorded once and replayed. Without a CUDA device the recording is plain repetition, and all else as on one."""

import os

import pytest
import torch
from torch.utils._pytree import tree_leaves, tree_map

from metalib.compilation import (
    CompilationError,
    cuda_graph,
    cuda_graph_obstacle,
    obstacle,
    repeat_eagerly,
    replay_steps,
)
from metalib.compilation.cuda_graph import record_cuda_graph
from metalib.losses import MeanSquaredError
from metalib.meta_training.adam import Adam
from metalib.meta_training.objectives import QueryLossAfterAdaptation
from metalib.meta_training.supervised import MetaStep, initial_state, stack_seeds
from metalib.networks import MLP
from metalib.randomness import generator
from metalib.tasks import Sinusoid
from metalib.update_rules import GradientDescent
from tests.contracts.test_update_rules import RULES

SEEDS = (0, 1)
ARCHITECTURE = MLP((1, 12, 9, 1))
RULE = GradientDescent(0.05)
STEP = MetaStep(
    QueryLossAfterAdaptation(MeanSquaredError(ARCHITECTURE.network()), RULE, 1), Adam(epsilon=0.01, cosine_steps=20)
)
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA"))]


def repeated_after_warm_up(work):
    """What takes the place of a recording on the CPU: the work itself, run before, as a recording runs it."""
    for _ in range(3):
        work()
    return work


def draw(first, count, device):
    numbers = [generator(seed, "training", first, device) for seed in SEEDS]
    return stack_seeds([Sinusoid().draw_episodes(each, (count, 4), 5, 6) for each in numbers], device)


def start(device):
    thetas = [ARCHITECTURE.initial_theta(generator(seed, "theta"), 0.4) for seed in SEEDS]
    return initial_state(torch.stack(thetas).to(device), STEP.adam)


@pytest.fixture(scope="module", name="device", params=DEVICES)
def _device(request):
    return request.param


@pytest.fixture(scope="module", name="folder")
def _folder(tmp_path_factory, device):
    folder = tmp_path_factory.mktemp("programs")
    reason = obstacle(folder) if device == "cpu" else cuda_graph_obstacle()
    if reason is not None:
        pytest.skip(f"nothing can be compiled here: {reason}")
    return folder


@pytest.fixture(scope="module", name="record")
def _record(device):
    return record_cuda_graph if device == "cuda" else repeated_after_warm_up


@pytest.fixture(scope="module", name="program")
def _program(folder, record, device):
    one = tree_map(lambda leaf: leaf[0], draw(0, 1, device))
    return replay_steps(STEP, start(device), one, folder, record)


def test_replayed_equals_eager_to_rounding(program, device):
    data = draw(0, 20, device)
    state, losses = program(start(device), data)
    expected, expected_losses = repeat_eagerly(STEP, start(device), data)(start(device), data)
    torch.testing.assert_close(losses, expected_losses, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(state.phi, expected.phi, rtol=0, atol=2e-5)
    assert state.adam.step == 20


def test_chunks_join_to_the_same_bytes_whatever_their_length(program, device):
    data = draw(0, 20, device)
    whole, losses = program(start(device), data)
    middle, first = program(start(device), tree_map(lambda leaf: leaf[:1], data))
    joined, rest = program(middle, tree_map(lambda leaf: leaf[1:], data))
    assert all(torch.equal(a, b) for a, b in zip(tree_leaves(whole), tree_leaves(joined), strict=True))
    assert torch.equal(losses, torch.cat([first, rest]))


def test_what_a_run_was_given_and_returned_is_left_alone_by_the_next(program, device):
    given, data = start(device), draw(0, 5, device)
    state, losses = program(given, data)
    kept = tree_map(torch.clone, (state, losses))
    program(state, draw(5, 5, device))
    assert all(torch.equal(a, b) for a, b in zip(tree_leaves((state, losses)), tree_leaves(kept), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(tree_leaves(given), tree_leaves(start(device)), strict=True))


def test_a_result_that_was_part_of_the_state_is_kept_as_it_was(folder, record, device):
    def step(state, now):
        a, b = state
        return (a + now, a), b.sum()

    zero = torch.zeros(2, device=device)
    program = replay_steps(step, (zero, zero + 1), zero, folder, record)
    (a, b), sums = program((zero, zero + 1), torch.full((3, 2), 10.0, device=device))
    assert a.tolist() == [30, 30]
    assert b.tolist() == [20, 20]
    assert sums.tolist() == [2, 0, 20]


@pytest.mark.parametrize("name", RULES)
def test_every_update_rule_is_replayed_as_it_runs_eagerly(monkeypatch, tmp_path, record, device, name):
    """Traced, but not compiled, which takes minutes for some."""
    monkeypatch.setattr(torch, "compile", lambda graph, **_: graph)
    loss, rule = MeanSquaredError(MLP((1, 8, 1)).network()), RULES[name]
    step, data = MetaStep(QueryLossAfterAdaptation(loss, rule, 2), STEP.adam), draw(0, 3, device)
    omega = rule.initial_omega(generator(0, "omega"))
    phi = torch.cat([MLP((1, 8, 1)).initial_theta(generator(0, "theta"), 0.4), omega]).expand(len(SEEDS), -1)
    state = initial_state(phi.clone().to(device), STEP.adam)
    one = tree_map(lambda leaf: leaf[0], data)
    found, losses = replay_steps(step, state, one, tmp_path, record)(state, data)
    expected, expected_losses = repeat_eagerly(step, state, one)(state, data)
    torch.testing.assert_close(losses, expected_losses)
    torch.testing.assert_close(found.phi, expected.phi)


def test_an_output_that_was_part_of_the_state_is_kept_as_it_was(folder, record, device):
    def step(state, now):
        (a,) = state
        return (a + now,), a

    zero = torch.zeros(2, device=device)
    (a,), outputs = replay_steps(step, (zero,), zero, folder, record)((zero,), torch.full((3, 2), 10.0, device=device))
    assert a.tolist() == [30, 30]
    assert outputs.tolist() == [[0, 0], [10, 10], [20, 20]]


def test_a_result_that_was_a_part_of_a_part_of_the_state_is_kept_as_it_was(folder, record, device):
    def step(state, now):
        a, b = state
        return (a + now, a[1]), b.sum()

    zero = torch.zeros(2, 2, device=device)
    state, tens = (zero, zero[0]), torch.full((3, 2, 2), 10.0, device=device)
    (a, b), sums = replay_steps(step, state, zero, folder, record)(state, tens)
    assert a.tolist() == [[30, 30], [30, 30]]
    assert b.tolist() == [20, 20]
    assert sums.tolist() == [0, 0, 20]


def test_what_cannot_be_compiled_is_said_in_one_line(folder, device):
    def record(work):
        raise RuntimeError("no such instruction\nand a long trace")

    zero = torch.zeros(2, device=device)
    program = replay_steps(lambda state, now: (state + now, state.sum()), zero, zero, folder, record)
    with pytest.raises(CompilationError, match="^RuntimeError: no such instruction$"):
        program(zero, torch.zeros(3, 2, device=device))


@pytest.mark.parametrize(
    ("package", "capability", "compiler", "reason"),
    [
        (False, (9, 0), "/usr/bin/gcc", "PyTorch finds no Triton"),
        (True, (6, 1), "/usr/bin/gcc", "of capability 7.0 and newer"),
        (True, (7, 0), None, "no C compiler found"),
        (True, (7, 0), "/usr/bin/gcc", None),
    ],
)
def test_what_stands_in_the_way_is_said(monkeypatch, package, capability, compiler, reason):
    monkeypatch.setattr(cuda_graph, "has_triton_package", lambda: package)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr("metalib.compilation.cuda_graph.shutil.which", lambda name: compiler)
    found = cuda_graph_obstacle()
    assert found is None if reason is None else reason in str(found)


def test_compiled_code_is_kept_in_the_folder_and_the_environment_as_it_was(program, folder, device):
    names = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")
    before = [os.environ.get(name) for name in names]
    program(start(device), draw(0, 30, device))  # longer than the chunks before, so compiled again
    assert any(path.is_file() for path in (folder / "inductor").rglob("*"))
    assert [os.environ.get(name) for name in names] == before
