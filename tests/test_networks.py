import pytest
import torch
from torch import nn

from metalib.networks import MLP, Network, from_dict
from metalib.randomness import generator


def test_mlp_equals_the_formula_in_float64():
    architecture = MLP((1, 4, 3, 2))
    network = architecture.network()
    theta = torch.randn(network.n_parameters, generator=generator(0, "theta"), dtype=torch.float64)
    x = torch.randn(5, 1, generator=generator(0, "x"), dtype=torch.float64)
    w1, b1, w2, b2, w3, b3 = theta.split([4, 4, 12, 3, 6, 2])
    hidden = torch.clamp(x @ w1.view(4, 1).T + b1, min=0)
    hidden = torch.clamp(hidden @ w2.view(3, 4).T + b2, min=0)
    torch.testing.assert_close(network(theta, x), hidden @ w3.view(2, 3).T + b3, rtol=1e-13, atol=1e-13)


def test_paper_network_has_1761_parameters():
    assert MLP((1, 40, 40, 1)).network().n_parameters == 1761


def test_initial_theta_is_truncated_normal_with_zero_biases():
    architecture = MLP((1, 400, 400, 1))
    theta = architecture.initial_theta(generator(0, "initial theta"), 0.01)
    named = architecture.network().unflatten(theta)
    weights = named["2.weight"]
    assert weights.abs().max() <= 0.02
    # A standard normal truncated at two standard deviations has standard deviation 0.8796.
    assert weights.std().item() == pytest.approx(0.008796, rel=0.01)
    assert abs(weights.mean().item()) < 5 * 0.0088 / 400
    assert all(torch.all(named[name] == 0) for name in named if name.endswith("bias"))


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (nn.Sequential(nn.Linear(1, 2), nn.Dropout(0.5)), "Dropout '1' draws random numbers"),
        (nn.Sequential(nn.Linear(1, 2), nn.RReLU()), "RReLU '1' draws random numbers"),
        (nn.Sequential(nn.Linear(1, 2), nn.FractionalMaxPool2d(2, 1)), "FractionalMaxPool2d '1' draws random numbers"),
        (nn.MultiheadAttention(4, 2, dropout=0.1), "MultiheadAttention draws random numbers"),
        (nn.GRU(2, 3, num_layers=2, dropout=0.1), "GRU draws random numbers"),
        (nn.Sequential(nn.Linear(1, 2), nn.BatchNorm1d(2)), "BatchNorm1d '1' keeps buffers"),
        (nn.ReLU(), "no parameters"),
    ],
)
def test_modules_that_are_no_function_of_theta_and_x_are_refused(module, reason):
    with pytest.raises(ValueError, match=reason):
        Network(module)


@pytest.mark.parametrize(
    ("layer", "instead"),
    [
        (nn.BatchNorm2d(3, track_running_stats=False), "BatchNormalisation, channels last"),
        (nn.InstanceNorm2d(3, affine=True), "GroupNorm with as many groups as channels"),
        (nn.LayerNorm([3, 4, 4]), "GroupNorm with one group"),
    ],
)
def test_normalisations_with_wrong_second_derivatives_are_refused(layer, instead):
    with pytest.raises(ValueError, match=f"^{type(layer).__name__} '1' has wrong second derivatives.*use .*{instead}"):
        Network(nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), layer))


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="unknown kind of network 'cnn'"):
        from_dict({"kind": "cnn"})


@pytest.mark.parametrize("sizes", [(), (1,), (1, 0, 1), (-1, 2)])
def test_impossible_sizes_are_refused(sizes):
    with pytest.raises(ValueError, match="sizes must name"):
        MLP(sizes)
