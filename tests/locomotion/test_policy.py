import math

import pytest
import torch
from torch.func import vmap

from metalib.locomotion.policy import Actor, GaussianPolicy
from metalib.randomness import generator

POLICIES = [GaussianPolicy((5, 7, 6, 3)), GaussianPolicy((4, 8, 2), "tanh"), GaussianPolicy((3, 2))]


def thetas(policy, n):
    drawn = [policy.initial_theta(generator(0, "theta", index), -0.5) for index in range(n)]
    noise = torch.randn(n, policy.n_parameters, generator=generator(0, "noise"))
    return torch.stack(drawn) + 0.1 * noise


@pytest.mark.parametrize("policy", POLICIES)
def test_log_probabilities_equal_torch_s(policy):
    (theta,) = thetas(policy, 1)
    observations = torch.randn(9, policy.observation_size, generator=generator(0, "observations"))
    actions = torch.randn(9, policy.action_size, generator=generator(0, "actions"))
    mean, log_std = policy.distribution(theta, observations)
    expected = torch.distributions.Normal(mean, log_std.exp()).log_prob(actions).sum(dim=1)
    torch.testing.assert_close(policy.log_probability(theta, observations, actions), expected)


@pytest.mark.parametrize("policy", POLICIES)
def test_the_actor_acts_as_the_pure_function_says(policy):
    per_task = thetas(policy, 4)
    observations = torch.randn(4, 6, policy.observation_size, generator=generator(0, "observations"))
    noise = torch.randn(4, 6, policy.action_size, generator=generator(0, "actions"))
    mean, log_std = vmap(policy.distribution)(per_task, observations)
    expected = mean + log_std.exp()[:, None] * noise
    actions = noise.clone()
    found = Actor(policy, per_task, 6).act(observations, actions)
    assert found is actions
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_the_network_by_hand():
    policy = GaussianPolicy((1, 2, 1))
    theta = torch.tensor([1.0, -1.0, 0.5, 0.5, 2.0, 3.0, -1.0, math.log(0.1)])  # W1, b1, W2, b2, log sigma
    mean, log_std = policy.distribution(theta, torch.tensor([[2.0], [-2.0]]))
    torch.testing.assert_close(mean, torch.tensor([[2 * 2.5 - 1], [3 * 2.5 - 1]]))
    assert log_std.exp().item() == pytest.approx(0.1)


def test_initial_weights_are_uniform_and_biases_zero():
    policy = GaussianPolicy((20, 100, 100, 6))
    theta = policy.initial_theta(generator(0, "theta"), log_std=-1.0)
    assert theta.shape == (policy.n_parameters,) == (20 * 100 + 100 + 100 * 100 + 100 + 100 * 6 + 6 + 6,)
    parts = policy.network.unflatten(theta[: policy.network.n_parameters])
    for name, part in parts.items():
        if name.endswith("bias"):
            assert not part.any()
            continue
        bound = math.sqrt(6 / sum(part.shape))
        assert bound * 0.99 < part.abs().max() <= bound
        assert part.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
    assert theta[-6:].tolist() == [-1.0] * 6


@pytest.mark.parametrize("sizes", [(3,), (3, 0, 2), ()])
def test_impossible_sizes_are_refused(sizes):
    with pytest.raises(ValueError, match="sizes must name at least an observation and an action"):
        GaussianPolicy(sizes)


def test_unknown_activations_and_other_thetas_are_refused():
    with pytest.raises(ValueError, match="unknown activation 'gelu'; known: relu, tanh"):
        GaussianPolicy((3, 2), "gelu")
    with pytest.raises(ValueError, match=r"thetas must be of shape \[tasks, 10\]"):
        Actor(GaussianPolicy((3, 2)), torch.zeros(4, 9), 1)


def test_description_survives_storage():
    policy = GaussianPolicy((4, 8, 2), "tanh")
    assert GaussianPolicy.from_dict(policy.to_dict()) == policy
