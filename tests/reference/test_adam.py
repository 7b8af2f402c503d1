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


@pytest.mark.parametrize("length", [30, 7])
def test_cosine_equals_torch_adam_under_its_scheduler(length):
    # A run of 30 steps, and one of 7 after which nothing may move.
    ours = torch.randn(2, 5, generator=generator(0, "parameters"), dtype=torch.float64)
    theirs = ours.clone().requires_grad_()
    optimiser = torch.optim.Adam([theirs], 0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=length)
    adam = Adam(0.1, cosine_steps=length)
    state = adam.initial_state(ours)
    for step in range(length):
        gradient = torch.randn(2, 5, generator=generator(step, "gradient"), dtype=torch.float64)
        theirs.grad = gradient.clone()
        optimiser.step()
        schedule.step()
        ours, state = adam.update(gradient, state, ours)
        torch.testing.assert_close(ours, theirs.detach(), rtol=1e-10, atol=1e-12)
    at_rest, _ = adam.update(torch.ones_like(ours), state, ours)
    assert torch.equal(at_rest, ours)


def test_a_late_cosine_is_a_constant_rate_and_then_a_cosine():
    start = torch.randn(5, generator=generator(0, "parameters"), dtype=torch.float64)
    theirs = start.clone().requires_grad_()
    optimiser = torch.optim.Adam([theirs], 0.1)
    scheduler = torch.optim.lr_scheduler
    parts = [scheduler.ConstantLR(optimiser, factor=1.0), scheduler.CosineAnnealingLR(optimiser, T_max=10)]
    schedule = scheduler.SequentialLR(optimiser, parts, milestones=[20])
    adam = Adam(0.1, cosine_steps=10, constant_steps=20)
    ours, state = start, adam.initial_state(start)
    for step in range(30):
        gradient = torch.randn(5, generator=generator(step, "gradient"), dtype=torch.float64)
        theirs.grad = gradient.clone()
        optimiser.step()
        schedule.step()
        ours, state = adam.update(gradient, state, ours)
        torch.testing.assert_close(ours, theirs.detach(), rtol=1e-10, atol=1e-12)


def test_a_cosine_is_not_a_constant_rate():
    parameters, gradient = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    moved = []
    for adam in (Adam(0.1), Adam(0.1, cosine_steps=10)):
        state, here = adam.initial_state(parameters), parameters
        for _ in range(10):
            here, state = adam.update(gradient, state, here)
        moved.append(here.abs().mean().item())
    # A constant gradient moves by the rate each step: ten times 0.1, against the cosine's sum of 0.1 * 5.5.
    assert moved == pytest.approx([1.0, 0.55], rel=1e-6)
