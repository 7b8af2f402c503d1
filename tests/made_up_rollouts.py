"""Rollouts made of random numbers, in float64, and a small policy written out by hand, for tests of meta-RL."""

import torch

from metalib.locomotion.policy import GaussianPolicy
from metalib.locomotion.surrogate import PolicyBatch
from metalib.locomotion.trajectories import Trajectories
from metalib.randomness import generator

POLICY = GaussianPolicy((2, 3, 2), "tanh")


def numbers(purpose, *shape, step=0):
    return torch.randn(*shape, generator=generator(0, purpose, step), dtype=torch.float64)


def made_up_theta(index=0):
    return 0.4 * numbers("theta", POLICY.n_parameters, step=index)


def made_up_rollouts(lengths, horizon, rollouts=3, observation_size=2):
    """Rollouts of as many tasks as there are ``lengths``, each of that many steps; zeros after them."""
    shape = (len(lengths), rollouts, horizon)
    mask = (torch.arange(horizon) < torch.tensor(lengths)[:, None])[:, None].expand(shape)
    drawn = [numbers(f"rollouts {part}", 20, 20, 20, 5) for part in range(3)]
    observations, actions, rewards = (part[: shape[0], : shape[1], : shape[2]] * mask[..., None] for part in drawn)
    ends = torch.zeros(shape[:2], dtype=torch.bool)
    return Trajectories(observations[..., :observation_size], actions[..., :2], rewards[..., 0], mask, ends, ends)


def hand_distribution(theta, observations):
    """The policy, sharing no code with metalib."""
    w1, b1, w2, b2, log_std = theta.split([6, 3, 6, 2, 2])
    mean = torch.tanh(observations @ w1.view(3, 2).T + b1) @ w2.view(2, 3).T + b2
    return torch.distributions.Normal(mean, log_std.exp().expand_as(mean))


def hand_log_probability(theta, observations, actions):
    return hand_distribution(theta, observations).log_prob(actions).sum(dim=-1)


def hand_loss(kind, theta, batch):
    """The surrogate of one task, with the mean over the steps that were taken."""
    taken = batch.weights > 0
    log_probability = hand_log_probability(theta, batch.observations, batch.actions)[taken]
    factor = log_probability
    if kind == "likelihood_ratio":
        factor = torch.exp(log_probability - batch.log_probabilities[taken])
    return -(factor * batch.advantages[taken]).mean()


def made_up_batch(thetas, n=7, index=0, padding=0):
    """Steps of one batch for each theta, the last ``padding`` of which were not taken in the last task."""
    tasks = len(thetas)
    observations, noise = (numbers(part, tasks, n, 2, step=index) for part in ("observations", "noise"))
    acted = [hand_distribution(*of_task) for of_task in zip(thetas.detach(), observations, strict=True)]
    actions = torch.stack([of.mean + of.stddev * z for of, z in zip(acted, noise, strict=True)])
    old = torch.stack([of.log_prob(drawn).sum(dim=-1) for of, drawn in zip(acted, actions, strict=True)])
    taken = torch.ones(tasks, n, dtype=torch.float64)
    taken[-1, n - padding :] = 0
    weights = taken / taken.sum(dim=1, keepdim=True)
    return PolicyBatch(observations, actions, numbers("advantages", tasks, n, step=index) * taken, old, weights)
