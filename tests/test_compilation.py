"""Compiled programs against the eager reference, and the pieces that make them."""

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_leaves, tree_map

from metalib.compilation import CompilationError, can_compile, compile_scan, obstacle, repeat_eagerly, scan_program
from metalib.compilation.cancel_concatenation import cancel_concatenation
from metalib.compilation.repeat import at
from metalib.compilation.small_matmul import small_matmul
from metalib.losses import MeanSquaredError
from metalib.meta_training.adam import Adam
from metalib.meta_training.objectives import QueryLossAfterAdaptation
from metalib.meta_training.supervised import MetaStep, initial_state, stack_seeds, train
from metalib.networks import MLP
from metalib.randomness import generator
from metalib.tasks import Sinusoid
from metalib.update_rules import GradientDescent

SEEDS = (0, 1)
ARCHITECTURE = MLP((1, 12, 9, 1))
LOSS = MeanSquaredError(ARCHITECTURE.network())


def objective(inner_steps=1, first_order=False):
    return QueryLossAfterAdaptation(LOSS, GradientDescent(0.05, first_order), inner_steps)


def draw(first, count):
    episodes = [Sinusoid().draw_episodes(generator(s, "training", first), (count, 4), 5, 6) for s in SEEDS]
    return stack_seeds(episodes, "cpu")


def start():
    return initial_state(torch.stack([ARCHITECTURE.initial_theta(generator(s, "theta"), 0.4) for s in SEEDS]), Adam())


def step_of(an_objective):
    return MetaStep(an_objective, Adam())


@pytest.fixture(scope="module", name="folder")
def _folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("programs")
    if not can_compile(folder):
        pytest.skip(f"nothing can be compiled here, so there is no compiled path to test: {obstacle(folder)}")
    return folder


@pytest.fixture(scope="module", name="program")
def _program(folder):
    return compile_scan(step_of(objective()), start(), at(draw(0, 2), 0), folder)


def test_compiled_equals_eager_to_rounding(program):
    data = draw(0, 20)
    state, losses = program(start(), data)
    expected, expected_losses = repeat_eagerly(step_of(objective()), start(), data)(start(), data)
    torch.testing.assert_close(losses, expected_losses, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(state.phi, expected.phi, rtol=0, atol=2e-5)
    assert state.adam.step == 20


def test_a_cosine_of_the_learning_rate_is_part_of_the_program(folder, program):
    data = draw(0, 20)

    step = MetaStep(objective(), Adam(cosine_steps=20))
    state, _ = compile_scan(step, start(), at(data, 0), folder)(start(), data)
    expected, _ = repeat_eagerly(step, start(), data)(start(), data)
    torch.testing.assert_close(state.phi, expected.phi, rtol=0, atol=2e-5)
    constant, _ = program(start(), data)
    assert (state.phi - constant.phi).abs().max() > 1e-3


@pytest.mark.parametrize("count", [1, 2, 7])
def test_a_chunk_may_have_any_length(program, count):
    state, losses = program(start(), draw(0, count))
    assert losses.shape == (count, len(SEEDS))
    assert state.adam.step == count


def test_chunks_join_to_the_same_bytes(program):
    data = draw(0, 10)
    whole, _ = program(start(), data)
    middle, _ = program(start(), tree_map(lambda leaf: leaf[:4].contiguous(), data))
    joined, _ = program(middle, tree_map(lambda leaf: leaf[4:].contiguous(), data))
    assert all(torch.equal(a, b) for a, b in zip(tree_leaves(whole), tree_leaves(joined), strict=True))


def test_the_state_given_is_not_changed(program):
    state = start()
    program(state, draw(0, 5))
    assert all(torch.equal(a, b) for a, b in zip(tree_leaves(state), tree_leaves(start()), strict=True))


def test_training_compiles_once_and_a_second_run_not_at_all(folder, monkeypatch):
    compiled = []
    original = scan_program._compile

    def counted(*arguments):
        compiled.append(1)
        original(*arguments)

    monkeypatch.setattr(scan_program, "_compile", counted)

    def backend(step, state, data):
        return compile_scan(step, state, data, folder)

    for expected in (1, 1):
        chunks = list(train(objective(2), Adam(), start(), draw, 350, SEEDS, backend=backend))
        assert [chunk.steps for chunk in chunks] == [100, 200, 300, 350]
        assert len(compiled) == expected


def test_first_order_and_several_steps_compile_to_another_program(folder, program):
    data = draw(0, 5)
    first_order = step_of(objective(first_order=True))
    state, _ = compile_scan(first_order, start(), at(data, 0), folder)(start(), data)
    expected, _ = repeat_eagerly(first_order, start(), data)(start(), data)
    torch.testing.assert_close(state.phi, expected.phi, rtol=0, atol=2e-5)
    assert not torch.equal(state.phi, program(start(), data)[0].phi)


def test_no_compiler_is_said(folder, monkeypatch):
    monkeypatch.setattr(scan_program, "compiler", lambda: None)
    with pytest.raises(CompilationError, match="no C\\+\\+ compiler found"):
        compile_scan(step_of(objective()), start(), at(draw(0, 2), 0), folder)
    assert not can_compile(folder)


def test_a_path_with_a_space_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(scan_program, "compiler", lambda: "g++")
    assert "a path holds a space" in str(obstacle(tmp_path / "a user's folder"))


SIZES = [
    (3, 10, 40, 40),
    (2, 1, 2, 2),
    (2, 5, 7, 9),
    (1, 250, 40, 40),
    (2, 40, 250, 40),
    (2, 17, 13, 71),
    (2, 9, 128, 128),
]


@pytest.mark.parametrize(("batch", "m", "k", "n"), SIZES)
def test_the_kernel_equals_float64_products(folder, batch, m, k, n):
    """All memory layouts that autograd produces, in one compiled program, by way of a scan."""

    def step(state, now):
        a, a_transposed, b, b_transposed = now
        lefts, rights = (a, a_transposed.mT), (b, b_transposed.mT, b[:1].expand(batch, k, n))
        return state + 1, torch.stack([small_matmul(left, right) for left in lefts for right in rights])

    a = torch.randn(2, batch, m, k, generator=generator(0, f"a {batch} {m} {k}"))
    b = torch.randn(2, batch, k, n, generator=generator(0, f"b {batch} {k} {n}"))
    data = [a, a.mT.contiguous(), b, b.mT.contiguous()]
    _, products = compile_scan(step, torch.zeros(1), at(data, 0), folder)(torch.zeros(1), data)
    exact, exact_shared = a.double() @ b.double(), a.double() @ b[:, :1].double()
    expected = torch.stack([exact, exact, exact_shared] * 2, dim=1)
    torch.testing.assert_close(products.double(), expected, rtol=1e-5, atol=1e-5 * k**0.5)


@pytest.mark.parametrize(
    "twice", [lambda n, b: (n, n.clone()), lambda n, b: (n + 0 * b, n + 0 * b), lambda n, b: (n, n)]
)
def test_a_step_that_returns_one_value_twice_is_refused(folder, twice):
    """PyTorch 2.13 compiles it to a program that crashes."""

    def step(state, now):
        a, b = state
        moved = a + now
        return twice(moved, b), moved.sum()

    with pytest.raises(CompilationError, match="returns one value twice, as results 0 and 1"):
        compile_scan(step, (torch.zeros(2), torch.ones(2)), torch.ones(2), folder)


def test_a_state_that_the_step_does_not_read_is_no_harm(folder):
    def step(state, now):
        a, _ = state
        return (a + now, now * 2), a.sum()

    program = compile_scan(step, (torch.zeros(2), torch.ones(2)), torch.ones(2), folder)
    (a, b), sums = program((torch.zeros(2), torch.ones(2)), torch.ones(3, 2))
    assert a.tolist() == [3, 3]
    assert b.tolist() == [2, 2]
    assert sums.tolist() == [0, 2, 4]


def joined_then_cut(a, b, theta):
    """A gradient step on a flat vector whose gradient is joined from two pieces."""
    moved = theta[None] - 0.1 * torch.cat([a, b], dim=1)
    left, right = moved.split([a.shape[1], b.shape[1]], dim=1)
    return left.sum() * 2, (right * right).sum(0), torch.cat([a, b], dim=1).sum(0)


def scaled_then_cut(a, b, theta):
    """What the operations are told beside their operands is part of them."""
    moved = torch.sub(theta[None], torch.cat([a, b], dim=1), alpha=0.1)
    left, right = moved.split([a.shape[1], b.shape[1]], dim=1)
    return left, right, torch.cat([a, b], dim=1).sum(0, dtype=torch.float64)


def test_arguments_by_name_are_kept():
    a, b = (torch.randn(5, n, generator=generator(n, "piece")) for n in (3, 4))
    theta = torch.randn(7, generator=generator(0, "theta"))
    cancelled = cancel_concatenation(make_fx(scaled_then_cut)(a, b, theta))
    for found, expected in zip(cancelled(a, b, theta), scaled_then_cut(a, b, theta), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_cancelled_concatenations_leave_the_numbers_alone():
    a, b = (torch.randn(5, n, generator=generator(n, "piece")) for n in (3, 4))
    theta = torch.randn(7, generator=generator(0, "theta"))
    graph = make_fx(joined_then_cut)(a, b, theta)
    before = graph(a, b, theta)
    cancelled = cancel_concatenation(graph)
    after = cancelled(a, b, theta)
    for x, y in zip(before, after, strict=True):  # sums over other shapes may round otherwise
        torch.testing.assert_close(x, y, rtol=1e-6, atol=1e-6)
    joins = [n for n in cancelled.graph.nodes if n.target == torch.ops.aten.cat.default]
    assert [tuple(n.meta["val"].shape) for n in joins] == [(7,)]  # only the sum's, over the small pieces
    assert not [n for n in cancelled.graph.nodes if n.target == torch.ops.aten.split_with_sizes.default]
