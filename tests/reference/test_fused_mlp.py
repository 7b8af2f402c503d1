"""The kernel of fully connected networks against the plain meta-step in float64, and what it leaves to others."""

import ctypes
import subprocess
from functools import partial

import pytest
import torch
from torch.utils._pytree import tree_leaves, tree_map

from metalib.compilation import native, repeat_eagerly
from metalib.compilation.repeat import at
from metalib.losses import Batch, CrossEntropy, Episode, MeanSquaredError, MinibatchEpisode
from metalib.meta_training.adam import Adam
from metalib.meta_training.fused_mlp import SOURCE, fuse, is_low_rank, kernel_obstacle
from metalib.meta_training.objectives import LossWithoutAdaptation, QueryLossAfterAdaptation
from metalib.meta_training.supervised import MetaStep, initial_state, train
from metalib.networks import MLP, Network
from metalib.randomness import generator
from metalib.update_rules import GradientDescent, LSTMRule, MetaSGD

RATE = 0.05
OUTER = Adam(1e-2)
# float32 keeps 24 bits; a meta-gradient is a sum of some hundred rounded products, in each of T inner steps.
TOLERANCE = 1e-5
PAPER = MLP((1, 40, 40, 1))


@pytest.fixture(scope="module", name="folder")
def _folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kernels")
    if native.compiler() is None:
        pytest.skip(f"there is no kernel to test: {native.NO_COMPILER}")
    assert kernel_obstacle(folder) is None
    return folder


def not_served(step, state, data):
    raise AssertionError("the kernel does not serve this step")


def draw(architecture, shape, support, query):
    """Tasks unlike each other, so that a mix-up shows; ``shape`` is [steps, seeds, tasks]."""
    numbers = generator(0, f"{architecture} {shape} {support} {query}")
    normal = partial(torch.randn, generator=numbers)
    n_in, n_out = architecture.sizes[0], architecture.sizes[-1]
    batches = [Batch(normal(*shape, n, n_in), normal(*shape, n, n_out)) for n in (support, query)]
    return Episode(*batches)


def start(architecture, seeds, adam=OUTER):
    thetas = []
    for seed in range(seeds):
        numbers = generator(seed, "theta")
        theta = architecture.initial_theta(numbers, 0.4)
        thetas.append(theta + 0.1 * torch.randn(theta.shape, generator=numbers))  # biases too
    return initial_state(torch.stack(thetas), adam)


def objective_of(architecture, inner_steps=1, first_order=False):
    return QueryLossAfterAdaptation(
        MeanSquaredError(architecture.network()), GradientDescent(RATE, first_order), inner_steps
    )


def assert_equal_meta_steps(folder, step, state, data, count):
    """Of one chunk: the losses, and Adam's first moment, which is the meta-gradient itself after one step."""
    found, losses = fuse(step, state, at(data, 0), folder, not_served)(state, data)
    exact = tree_map(torch.Tensor.double, (state, data))
    expected, expected_losses = repeat_eagerly(step, *exact)(*exact)
    assert losses.dtype == found.phi.dtype == torch.float32
    torch.testing.assert_close(losses.double(), expected_losses, rtol=TOLERANCE * count, atol=0)
    for moment in (0, 1):
        scale = expected.adam[moment].abs().max()
        assert (found.adam[moment].double() - expected.adam[moment]).abs().max() < TOLERANCE * count * scale
    assert found.adam.step == expected.adam.step == state.adam.step + count
    return found, expected


SIZES = [
    (1, 40, 40, 1),
    (3, 16, 1),
    (1, 1),
    (2, 1, 2, 1),
    (2, 32, 8, 17, 3),
    (1, 7, 5, 9, 2),
    (4, 64, 33, 1),
    (1, 24, 24, 24, 24, 1),
]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize(("inner_steps", "support", "query"), [(1, 1, 1), (1, 5, 7), (1, 16, 3), (2, 3, 10), (3, 5, 6)])
@pytest.mark.parametrize("first_order", [False, True])
def test_meta_gradient(folder, monkeypatch, sizes, inner_steps, support, query, first_order):
    monkeypatch.setattr("metalib.meta_training.fused_mlp.is_low_rank", lambda *_: True)  # right also where it is slow
    architecture = MLP(sizes)
    step = MetaStep(objective_of(architecture, inner_steps, first_order), OUTER)
    assert_equal_meta_steps(folder, step, start(architecture, 2), draw(architecture, (1, 2, 3), support, query), 1)


@pytest.fixture(scope="module", name="narrow_kernel")
def _narrow_kernel(tmp_path_factory):
    """The kernel as a processor without AVX-512 has it: half the numbers a vector, half the registers."""
    library = tmp_path_factory.mktemp("narrow") / "mlp_kernel.so"
    flags = [*native.FLAGS, "-mno-avx512f", f"-I{native.HEADERS}"]
    command = [native.compiler() or "", *flags, str(SOURCE), "-o", str(library)]
    if native.compiler() is None or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("no C++ compiler for x86 here, which alone has wide and narrow vectors")
    return ctypes.CDLL(str(library))


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_meta_gradient_with_narrow_vectors(folder, narrow_kernel, monkeypatch, sizes):
    monkeypatch.setattr("metalib.meta_training.fused_mlp.is_low_rank", lambda *_: True)
    monkeypatch.setattr("metalib.meta_training.fused_mlp._kernel", lambda _: narrow_kernel)
    architecture = MLP(sizes)
    step = MetaStep(objective_of(architecture, 2), OUTER)
    assert_equal_meta_steps(folder, step, start(architecture, 2), draw(architecture, (1, 2, 3), 7, 6), 1)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_training_without_an_inner_loop(folder, sizes):
    architecture = MLP(sizes)
    step = MetaStep(LossWithoutAdaptation(MeanSquaredError(architecture.network())), OUTER)
    assert_equal_meta_steps(folder, step, start(architecture, 2), draw(architecture, (1, 2, 3), 1, 20).query, 1)


def test_no_inner_steps_are_training_without_an_inner_loop(folder):
    data, state = draw(PAPER, (5, 1, 4), 2, 6), start(PAPER, 1)
    none = MetaStep(objective_of(PAPER, 0), OUTER)
    plain = MetaStep(LossWithoutAdaptation(MeanSquaredError(PAPER.network())), OUTER)
    found = fuse(none, state, at(data, 0), folder, not_served)(state, data)
    expected = fuse(plain, state, at(data.query, 0), folder, not_served)(state, data.query)
    assert all(torch.equal(a, b) for a, b in zip(tree_leaves(found), tree_leaves(expected), strict=True))


@pytest.mark.parametrize("adam", [OUTER, Adam(1e-2, 0.8, 0.95, 1e-4), Adam(1e-2, cosine_steps=6, constant_steps=2)])
def test_adam_over_a_chunk(folder, adam):
    step = MetaStep(objective_of(PAPER), adam)
    found, expected = assert_equal_meta_steps(folder, step, start(PAPER, 2, adam), draw(PAPER, (8, 2, 4), 10, 10), 8)
    torch.testing.assert_close(found.phi.double(), expected.phi, rtol=0, atol=1e-4)


def test_the_second_order_term_is_there(folder):
    data, state = draw(PAPER, (1, 1, 3), 5, 5), start(PAPER, 1)
    found = [
        fuse(MetaStep(objective_of(PAPER, 1, flag), OUTER), state, at(data, 0), folder, not_served)(state, data)[0]
        for flag in (True, False)
    ]
    assert (found[0].adam.first - found[1].adam.first).abs().max() > 0.01 * found[0].adam.first.abs().max()


def test_chunks_join_to_the_same_bytes_and_the_state_given_is_not_changed(folder):
    data, state = draw(PAPER, (10, 2, 3), 5, 5), start(PAPER, 2)
    program = fuse(MetaStep(objective_of(PAPER), OUTER), state, at(data, 0), folder, not_served)
    whole, losses = program(state, data)
    middle, first = program(state, tree_map(lambda leaf: leaf[:4], data))
    joined, second = program(middle, tree_map(lambda leaf: leaf[4:], data))
    assert all(torch.equal(a, b) for a, b in zip(tree_leaves(whole), tree_leaves(joined), strict=True))
    assert torch.equal(losses, torch.cat([first, second]))
    assert all(torch.equal(a, b) for a, b in zip(tree_leaves(state), tree_leaves(start(PAPER, 2)), strict=True))


def at_seed(data, seed):
    return tree_map(lambda leaf: leaf[:, seed : seed + 1], data)


def test_a_seed_does_not_depend_on_its_neighbours(folder):
    data, state = draw(PAPER, (5, 3, 4), 5, 5), start(PAPER, 3)
    step, one, its = MetaStep(objective_of(PAPER), OUTER), initial_state(state.phi[1:2], OUTER), at_seed(data, 1)
    together, _ = fuse(step, state, at(data, 0), folder, not_served)(state, data)
    alone, _ = fuse(step, one, at(its, 0), folder, not_served)(one, its)
    assert torch.equal(together.phi[1:2], alone.phi)


@pytest.mark.parametrize("place", ["support", "query", "phi"])
def test_nan_is_seen(folder, place):
    data, state = draw(PAPER, (1, 2, 3), 5, 5), start(PAPER, 2)
    if place == "phi":
        state.phi[0, 0] = torch.nan
    else:
        getattr(data, place).x[0, 0, 1, 2] = torch.nan
    program = fuse(MetaStep(objective_of(PAPER), OUTER), state, at(data, 0), folder, not_served)
    found, losses = program(state, data)
    assert losses.isnan().tolist() == [[True, False]]
    assert found.phi.isnan().any(dim=1).tolist() == [True, False]
    whole = tree_map(lambda leaf: torch.where(leaf.isnan(), 0.0, leaf), (state, data))
    assert torch.equal(found.phi[1], program(*whole)[0].phi[1])


def test_training_runs_on_it(folder):
    backend = partial(fuse, folder=folder, otherwise=not_served)

    def chunks(first, count):
        return tree_map(lambda leaf: leaf[first:], draw(PAPER, (first + count, 1, 5), 10, 10))

    found = list(train(objective_of(PAPER), OUTER, start(PAPER, 1), chunks, 250, (0,), backend=backend))
    assert [chunk.steps for chunk in found] == [100, 200, 250]
    eager = list(train(objective_of(PAPER), OUTER, start(PAPER, 1), chunks, 250, (0,)))
    for ours, theirs in zip(found, eager, strict=True):
        torch.testing.assert_close(ours.losses.mean(), theirs.losses.mean(), rtol=1e-4, atol=0)


OTHERS = repeat_eagerly(lambda state, now: (state, now), None, None)


def others(step, state, data):
    return OTHERS


class Unlike(Network):
    """Another network of the same parameters."""

    def __init__(self):
        super().__init__(torch.nn.Sequential(torch.nn.Linear(1, 40), torch.nn.Tanh(), torch.nn.Linear(40, 1)))


ONE_LAYER = MLP((1, 40, 1))
LOSS = MeanSquaredError(ONE_LAYER.network())
LEFT = {
    "another network": (QueryLossAfterAdaptation(MeanSquaredError(Unlike()), GradientDescent(RATE), 1), OUTER),
    "another loss": (QueryLossAfterAdaptation(CrossEntropy(ONE_LAYER.network()), GradientDescent(RATE), 1), OUTER),
    "another rule": (QueryLossAfterAdaptation(LOSS, LSTMRule(), 1), OUTER),
    "learned rates": (QueryLossAfterAdaptation(LOSS, MetaSGD(LOSS.network.n_parameters, RATE), 1), OUTER),
    "a fixed start": (QueryLossAfterAdaptation(LOSS, GradientDescent(RATE), 1, learned_start=False), OUTER),
    "a bound on the gradient": (objective_of(ONE_LAYER), Adam(1e-2, clip_norm=1.0)),
    "many inner steps": (objective_of(ONE_LAYER, 9), OUTER),
    "any objective": (lambda phi, episode: LOSS(phi, episode.query), OUTER),
}


@pytest.mark.parametrize("case", LEFT)
def test_what_the_kernel_does_not_serve_is_left_to_others(folder, case):
    data, state = at(draw(ONE_LAYER, (1, 1, 2), 5, 5), 0), start(ONE_LAYER, 1)
    assert fuse(MetaStep(*LEFT[case]), state, data, folder, others) is OTHERS


def test_other_data_is_left_to_others(folder):
    step, state = MetaStep(objective_of(ONE_LAYER), OUTER), start(ONE_LAYER, 1)
    data = at(draw(ONE_LAYER, (1, 1, 2), 5, 5), 0)
    assert fuse(step, state, data, folder, others) is not OTHERS
    unlike = [
        tree_map(torch.Tensor.double, data),
        data._replace(query=Batch(data.query.x, data.query.y[..., 0])),
        MinibatchEpisode(data.support, data.query, torch.zeros(1, 2, 1, 3, dtype=torch.int64)),
    ]
    for other in unlike:
        assert fuse(step, state, other, folder, others) is OTHERS
    plain = MetaStep(LossWithoutAdaptation(LOSS), OUTER)
    assert fuse(plain, state, data.query, folder, others) is not OTHERS
    assert fuse(plain, state, data, folder, others) is OTHERS
    assert fuse(step, state, data.query, folder, others) is OTHERS
    assert fuse(lambda state, now: (state, now), state, data, folder, others) is OTHERS


@pytest.mark.parametrize("seeds", [2, 3])
def test_states_of_other_shapes_are_left_to_others(folder, seeds):
    step, data = MetaStep(objective_of(ONE_LAYER), OUTER), at(draw(ONE_LAYER, (1, 2, 2), 5, 5), 0)
    state = start(ONE_LAYER, seeds)
    assert (fuse(step, state, data, folder, others) is OTHERS) == (seeds != 2)
    short = initial_state(state.phi[:, 1:], OUTER)
    assert fuse(step, short, data, folder, others) is OTHERS
    fewer = data._replace(query=tree_map(lambda leaf: leaf[:, :1], data.query))
    assert fuse(step, state, fewer, folder, others) is OTHERS


def test_other_shapes_than_the_example_s_are_refused(folder):
    data, state = draw(ONE_LAYER, (4, 1, 2), 5, 5), start(ONE_LAYER, 1)
    program = fuse(MetaStep(objective_of(ONE_LAYER), OUTER), state, at(data, 0), folder, not_served)
    with pytest.raises(ValueError, match="the program is for shapes"):
        program(start(ONE_LAYER, 2), data)
    with pytest.raises(ValueError, match="the program is for shapes"):
        program(state, tree_map(torch.Tensor.double, data))


def test_without_a_compiler_it_is_left_to_others(tmp_path, monkeypatch):
    monkeypatch.setattr("metalib.compilation.native.compiler", lambda: None)
    step, state, data = MetaStep(objective_of(PAPER), OUTER), start(PAPER, 1), at(draw(PAPER, (1, 1, 2), 5, 5), 0)
    assert kernel_obstacle(tmp_path) == native.NO_COMPILER
    assert fuse(step, state, data, tmp_path, others) is OTHERS


def test_the_rank_that_pays():
    found = [is_low_rank((1, 20, 40, 1), steps, shots) for steps, shots in ((1, 10), (4, 10), (5, 10), (0, 99))]
    assert found == [True, True, False, True]
    assert not is_low_rank((1, 1), 1, 1)
