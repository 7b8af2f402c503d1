"""Few-shot classification without gradient steps: prototypical networks, and nearest neighbours on pixels."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import vmap

from metalib.losses import Batch, Episode
from metalib.networks import Network


def prototype_logits(network: Network, way: int) -> Callable[[Tensor, Episode], Tensor]:
    """Return ``(theta, episode) -> logits [n_query, way]`` of a prototypical network (Snell et al. 2017, equation 2).

    A class's prototype is the mean of its support features; the logit of a class is minus the squared distance to
    its prototype. Support and query pass the network together, so that they share batch statistics.
    """

    def logits(theta: Tensor, episode: Episode) -> Tensor:
        n_support = episode.support.y.shape[0]
        features = network(theta, torch.cat([episode.support.x, episode.query.x]))
        membership = nn.functional.one_hot(episode.support.y, way).to(features.dtype)
        prototypes = membership.T @ features[:n_support] / membership.sum(0)[:, None]
        return -((features[n_support:, None] - prototypes) ** 2).sum(-1)

    return logits


def prototypical_loss(network: Network, way: int) -> Callable[[Tensor, Episode], Tensor]:
    """Return ``(theta, episode) -> cross-entropy of the query under`` :func:`prototype_logits`."""
    logits = prototype_logits(network, way)

    def loss(theta: Tensor, episode: Episode) -> Tensor:
        return nn.functional.cross_entropy(logits(theta, episode), episode.query.y)

    return loss


def prototype_predictions(network: Network, way: int, thetas: Tensor, episodes: Episode, at_once: int) -> Tensor:
    """Return the class predicted for each query image, ``[seeds, episodes, n_query]``.

    Args:
        network: gives features.
        way: classes an episode.
        thetas: parameters of every seed, ``[seeds, n_parameters]``.
        episodes: x and y ``[episodes, n, ...]``.
        at_once: episodes in one vmapped block.
    """
    logits = vmap(prototype_logits(network, way), in_dims=(None, 0))
    blocks = [part.split(at_once) for batch in episodes for part in batch]
    rows = []
    for theta in thetas:
        parts = [
            logits(theta, Episode(Batch(sx, sy), Batch(qx, qy))).argmax(-1)
            for sx, sy, qx, qy in zip(*blocks, strict=True)
        ]
        rows.append(torch.cat(parts))
    return torch.stack(rows)


def nearest_neighbours(episode: Episode) -> Tensor:
    """Return the class of the support image nearest to each query image in pixels (Euclidean), ``[..., n_query]``."""
    support, query = (batch.x.flatten(-3).to(torch.float32) for batch in (episode.support, episode.query))
    nearest = torch.cdist(query, support).argmin(-1)
    return episode.support.y.gather(-1, nearest)
