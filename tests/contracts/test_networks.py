"""What holds for every network."""

import pytest
import torch
from torch import nn
from torch.func import vmap

from metalib.networks import MLP, Architecture, Conv4, FullyConnected, Network, from_dict
from metalib.randomness import generator

ARCHITECTURES: dict[str, Architecture] = {
    "paper mlp": MLP((1, 40, 40, 1)),
    "oracle mlp": MLP((3, 40, 40, 1)),
    "linear": MLP((2, 3)),
    "conv4, stride": Conv4((1, 12, 9), 3, 4),
    "conv4, max pool": Conv4((2, 16, 17), 3, 4, "max_pool"),
    "conv4, features": Conv4((1, 12, 12), 3, 0),
    "fully connected images": FullyConnected((1, 4, 4), (6, 5), 3),
}
FEATURES = {"conv4, features": 3}
INPUTS = {name: (architecture.network(), architecture.input_shape) for name, architecture in ARCHITECTURES.items()}
INPUTS["tanh module"] = (Network(nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 1, bias=False))), (2,))


@pytest.fixture(params=INPUTS, name="case")
def _case(request):
    return INPUTS[request.param]


@pytest.fixture(name="network")
def _network(case):
    return case[0]


def inputs(case, n):
    return torch.randn(n, *case[1], generator=generator(0, "x"))


def thetas(network, n):
    return torch.randn(n, network.n_parameters, generator=generator(0, "theta")) * 0.3


def test_layout_covers_theta_without_gap_or_overlap(network):
    ends = [0, *(view.stop for view in network.layout)]
    assert [view.start for view in network.layout] == ends[:-1]
    assert ends[-1] == network.n_parameters
    assert all(view.shape.numel() == view.stop - view.start for view in network.layout)


def test_flatten_inverts_unflatten(network):
    (theta,) = thetas(network, 1)
    assert torch.equal(network.flatten(network.unflatten(theta)), theta)


def test_vmap_over_thetas_equals_a_loop(case, network):
    batch, x = thetas(network, 4), inputs(case, 6)
    together = vmap(network, in_dims=(0, None))(batch, x)
    torch.testing.assert_close(together, torch.stack([network(theta, x) for theta in batch]), rtol=1e-4, atol=1e-5)


def test_pure_same_arguments_same_output(case, network):
    (theta,), x = thetas(network, 1), inputs(case, 6)
    before = theta.clone()
    assert torch.equal(network(theta, x), network(theta, x))
    assert torch.equal(theta, before)


def test_gradient_equals_finite_differences(case, network):
    theta = thetas(network, 1)[0].double()
    x = inputs(case, 6).double()
    weights = torch.randn(network(theta, x).shape, generator=generator(2, "weights"), dtype=torch.float64)

    def scalar(t):
        return (network(t, x) * weights).sum()

    gradient = torch.func.grad(scalar)(theta)
    direction = torch.randn(network.n_parameters, generator=generator(1, "direction"), dtype=torch.float64)
    h = 1e-7
    difference = (scalar(theta + h * direction) - scalar(theta - h * direction)) / (2 * h)
    torch.testing.assert_close(gradient @ direction, difference, rtol=1e-4, atol=1e-6)


def test_second_derivative_equals_finite_differences_of_the_first(case, network):
    theta = thetas(network, 1)[0].double()
    x = inputs(case, 6).double()
    gradient = torch.func.grad(lambda t: network(t, x).square().sum())
    direction = torch.randn(network.n_parameters, generator=generator(1, "direction"), dtype=torch.float64)
    product = torch.func.grad(lambda t: gradient(t) @ direction)(theta)
    h = 1e-6
    difference = (gradient(theta + h * direction) - gradient(theta - h * direction)) / (2 * h)
    torch.testing.assert_close(product, difference, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_description_survives_storage(name):
    architecture = ARCHITECTURES[name]
    assert from_dict(architecture.to_dict()) == architecture


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_sizes_are_as_described(name):
    architecture = ARCHITECTURES[name]
    theta = architecture.initial_theta(generator(0, "theta"), 0.1)
    y = architecture.network()(theta, torch.zeros(7, *architecture.input_shape))
    assert y.shape == (7, architecture.n_outputs or FEATURES[name])
    assert torch.equal(theta, architecture.initial_theta(generator(0, "theta"), 0.1))
