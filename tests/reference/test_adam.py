"""Our Adam against torch's own, in float64."""

import pytest
import torch

from metalib.meta_training.adam import Adam
from metalib.randomness import generator


@pytest.mark.parametrize("settings", [Adam(), Adam(0.1, 0.5, 0.9, 1e-3)])
def test_equals_torch_adam(settings):
    ours = torch.randn(2, 5, generator=generator(0, "parameters"), dtype=torch.float64)
    theirs = ours.clone().requires_grad_()
    optimiser = torch.optim.Adam([theirs], settings.learning_rate, (settings.beta1, settings.beta2), settings.epsilon)
    state = settings.initial_state(ours)
    for step in range(30):
        gradient = torch.randn(2, 5, generator=generator(step, "gradient"), dtype=torch.float64) * 10.0 ** (
            step % 5 - 3
        )
        theirs.grad = gradient.clone()
        optimiser.step()
        ours, state = settings.update(gradient, state, ours)
        torch.testing.assert_close(ours, theirs.detach(), rtol=1e-12, atol=1e-14)
    assert state.step == 30
