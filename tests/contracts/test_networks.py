"""What holds for every network."""

import pytest
import torch
from torch import nn
from torch.func import vmap

from metalib.networks import MLP, Network
from metalib.randomness import generator

NETWORKS = {
    "paper mlp": MLP((1, 40, 40, 1)).network(),
    "oracle mlp": MLP((3, 40, 40, 1)).network(),
    "linear": MLP((2, 3)).network(),
    "tanh module": Network(nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 1, bias=False))),
}


@pytest.fixture(params=NETWORKS, name="network")
def _network(request):
    return NETWORKS[request.param]


def inputs(network, n):
    first = network.layout[0]
    return torch.randn(n, first.shape[1], generator=generator(0, "x"))


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


def test_vmap_over_thetas_equals_a_loop(network):
    batch, x = thetas(network, 4), inputs(network, 6)
    together = vmap(network, in_dims=(0, None))(batch, x)
    torch.testing.assert_close(together, torch.stack([network(theta, x) for theta in batch]), rtol=1e-5, atol=1e-6)


def test_pure_same_arguments_same_output(network):
    (theta,), x = thetas(network, 1), inputs(network, 6)
    before = theta.clone()
    assert torch.equal(network(theta, x), network(theta, x))
    assert torch.equal(theta, before)


def test_gradient_equals_finite_differences(network):
    theta = thetas(network, 1)[0].double()
    x = inputs(network, 6).double()
    gradient = torch.func.grad(lambda t: network(t, x).square().sum())(theta)
    direction = torch.randn(network.n_parameters, generator=generator(1, "direction"), dtype=torch.float64)
    h = 1e-7
    difference = (
        network(theta + h * direction, x).square().sum() - network(theta - h * direction, x).square().sum()
    ) / (2 * h)
    torch.testing.assert_close(gradient @ direction, difference, rtol=1e-5, atol=1e-6)
