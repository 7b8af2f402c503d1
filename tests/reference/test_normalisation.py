"""Which normalisations keep their second derivatives under vmap: the reason for what ``Network`` refuses."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from metalib.networks.images import BatchNormalisation

N_TASKS, N_IMAGES = 3, 6


class ChannelsLastBatchNorm(nn.Module):
    """The project's batch normalisation, for channels first."""

    def __init__(self, channels):
        super().__init__()
        self.inner = BatchNormalisation(channels)

    def forward(self, x):
        return self.inner(x.movedim(1, -1)).movedim(-1, 1)


def gradient(objective, theta):
    """Return the gradient of a scalar of named parameters, as one vector."""
    leaves = {name: value.clone().requires_grad_() for name, value in theta.items()}
    parts = torch.autograd.grad(objective(leaves), list(leaves.values()))
    return torch.cat([part.flatten() for part in parts])


def deviation(layer):
    """Return how far the meta-gradient under vmap is from that of a loop over tasks, relative to its length."""
    torch.manual_seed(0)
    head = nn.Linear(48, 3)
    module = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), layer, nn.Tanh(), nn.Flatten(), head).double()
    theta = {name: torch.randn_like(value) * 0.3 for name, value in module.named_parameters()}
    images = torch.randn(2, N_TASKS, N_IMAGES, 2, 4, 4, dtype=torch.float64)
    targets = torch.randn(2, N_TASKS, N_IMAGES, 3, dtype=torch.float64)

    def loss(theta, x, y):
        return (functional_call(module, theta, (x,)) - y).square().mean()

    def one_task(theta, x, y):
        slope = grad(loss)(theta, x[0], y[0])
        moved = {name: value - 0.1 * slope[name] for name, value in theta.items()}
        return loss(moved, x[1], y[1])

    together = gradient(lambda t: vmap(one_task, in_dims=(None, 1, 1))(t, images, targets).mean(), theta)
    each = gradient(
        lambda t: torch.stack([one_task(t, images[:, i], targets[:, i]) for i in range(N_TASKS)]).mean(), theta
    )
    return ((together - each).norm() / each.norm()).item()


@pytest.mark.parametrize("layer", [ChannelsLastBatchNorm(3), nn.GroupNorm(1, 3), nn.GroupNorm(3, 3)])
def test_accepted_normalisations_give_the_same_meta_gradient_under_vmap_and_in_a_loop(layer):
    assert deviation(layer) < 1e-12


@pytest.mark.parametrize(
    "layer", [nn.BatchNorm2d(3, track_running_stats=False), nn.InstanceNorm2d(3, affine=True), nn.LayerNorm([3, 4, 4])]
)
def test_refused_normalisations_do_not(layer):
    assert deviation(layer) > 1e-3, f"PyTorch has mended {type(layer).__name__}: Network need not refuse it any more"
