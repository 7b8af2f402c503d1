"""Networks for images against torch's own convolutions and batch normalisation; no leak between episodes."""

import pytest
import torch
from torch import nn
from torch.func import vmap

from metalib.losses import Batch, CrossEntropy, Episode
from metalib.meta_training.objectives import QueryLossAfterAdaptation
from metalib.networks import Conv4, FullyConnected, with_new_head
from metalib.networks.images import patches
from metalib.randomness import generator
from metalib.update_rules import GradientDescent


def images(*shape):
    return torch.rand(*shape, generator=generator(0, "images"), dtype=torch.float64)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(6, 7), (5, 4), (2, 2), (1, 3)])
def test_patches_times_weights_is_a_convolution_and_so_are_its_derivatives(stride, size):
    x = images(2, 3, *size).requires_grad_()
    kernel = torch.randn(4, 3, 3, 3, generator=generator(0, "kernel"), dtype=torch.float64)
    weight = kernel.permute(2, 3, 1, 0).reshape(27, 4)
    ours = (patches(x.movedim(1, -1), stride) @ weight).movedim(-1, 1)
    theirs = nn.functional.conv2d(x, kernel, stride=stride, padding=1)
    torch.testing.assert_close(ours, theirs)
    sides = [torch.autograd.grad((y**3).sum(), x, create_graph=True)[0] for y in (ours, theirs)]
    torch.testing.assert_close(*sides)
    torch.testing.assert_close(*(torch.autograd.grad(side.square().sum(), x, retain_graph=True)[0] for side in sides))


def torch_conv4(parameters, x, downsample):
    """The network written with torch's layers."""
    for block in range(1, 5):
        weight = parameters[f"block{block}.weight"]
        kernel = weight.reshape(3, 3, -1, weight.shape[1]).permute(3, 2, 0, 1)
        x = nn.functional.conv2d(x, kernel, stride=2 if downsample == "stride" else 1, padding=1)
        scale, shift = (parameters[f"block{block}.normalisation.{part}"] for part in ("weight", "bias"))
        x = torch.relu(nn.functional.batch_norm(x, None, None, scale, shift, training=True))
        if downsample == "max_pool":
            x = nn.functional.max_pool2d(x, 2)
    features = x.mean((2, 3)) if downsample == "stride" else x.movedim(1, -1).flatten(1)
    return features @ parameters["head.weight"].T + parameters["head.bias"]


@pytest.mark.parametrize("downsample", ["stride", "max_pool"])
def test_conv4_equals_torch_layers(downsample):
    architecture = Conv4((2, 28, 17), 4, 5, downsample)
    network = architecture.network()
    theta = torch.randn(network.n_parameters, generator=generator(0, "theta"), dtype=torch.float64) * 0.5
    x = images(6, 2, 28, 17)
    torch.testing.assert_close(network(theta, x), torch_conv4(network.unflatten(theta), x, downsample))


def test_fully_connected_equals_torch_layers():
    network = FullyConnected((1, 4, 3), (6, 5), 2).network()
    theta = torch.randn(network.n_parameters, generator=generator(0, "theta"), dtype=torch.float64)
    parameters, x = network.unflatten(theta), images(8, 1, 4, 3)
    hidden = x.flatten(1)
    for layer in (1, 2):
        hidden = hidden @ parameters[f"layer{layer}.weight"].T
        scale, shift = (parameters[f"normalisation{layer}.{part}"] for part in ("weight", "bias"))
        hidden = torch.relu(nn.functional.batch_norm(hidden, None, None, scale, shift, training=True))
    expected = hidden @ parameters["head.weight"].T + parameters["head.bias"]
    torch.testing.assert_close(network(theta, x), expected)


def test_the_sizes_of_the_papers():
    assert Conv4((1, 28, 28), 64, 5).n_features == 64
    assert Conv4((3, 84, 84), 32, 5, "max_pool").n_features == 800


def test_bytes_are_numbers_from_0_to_1():
    network = Conv4((1, 8, 8), 3, 2).network()
    theta = torch.randn(network.n_parameters, generator=generator(0, "theta"))
    x = (images(4, 1, 8, 8) * 255).to(torch.uint8)
    torch.testing.assert_close(network(theta, x), network(theta, x.float() / 255))


def test_no_episode_leaks_into_another():
    """Batch statistics are an episode's own: replacing the neighbours changes nothing, bit for bit."""
    architecture = Conv4((1, 8, 8), 3, 2)
    theta = architecture.initial_theta(generator(0, "theta"), 0.1)
    objective = QueryLossAfterAdaptation(CrossEntropy(architecture.network()), GradientDescent(0.4), 2)
    x = images(5, 8, 1, 8, 8).float()
    y = torch.tensor([0, 1] * 4).expand(5, 8)
    episodes = Episode(Batch(x[:, :4], y[:, :4]), Batch(x[:, 4:], y[:, 4:]))
    changed = Episode(*(Batch(torch.cat([b.x[:1], 3 * b.x[1:] + 1]), b.y) for b in episodes))
    together = vmap(objective, in_dims=(None, 0))
    before, after = together(theta, episodes), together(theta, changed)
    assert torch.equal(before[0], after[0])
    assert not torch.equal(before[1:], after[1:])


def test_outputs_depend_on_the_images_beside_them():
    """Images are normalised by the statistics of their batch."""
    network = Conv4((1, 8, 8), 3, 2).network()
    theta = torch.randn(network.n_parameters, generator=generator(0, "theta"))
    x = images(6, 1, 8, 8).float()
    assert not torch.allclose(network(theta, x)[:3], network(theta, x[:3]), atol=1e-3)


def test_a_new_head_keeps_the_rest():
    old, new = Conv4((1, 8, 8), 3, 7), Conv4((1, 8, 8), 3, 2)
    theta = torch.stack([old.initial_theta(generator(seed, "theta"), 0.1) for seed in (0, 1)])
    moved = new.network().unflatten(with_new_head(theta, old, new))
    parameters = old.network().unflatten(theta)
    for name, value in moved.items():
        expected = torch.zeros(2, *value.shape[1:]) if name.startswith("head.") else parameters[name]
        assert torch.equal(value, expected), name


def test_a_new_head_on_another_body_is_refused():
    old, new = Conv4((1, 8, 8), 4, 7), Conv4((1, 8, 8), 3, 2)
    with pytest.raises(ValueError, match=r"block1\.weight \[9, 3\] is not in the old network"):
        with_new_head(old.initial_theta(generator(0, "theta"), 0.1), old, new)
