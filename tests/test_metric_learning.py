"""Prototypical networks and nearest neighbours against loops written out."""

import torch

from metalib.losses import Batch, Episode
from metalib.metric_learning import nearest_neighbours, prototype_logits, prototype_predictions, prototypical_loss
from metalib.networks import MLP, Conv4
from metalib.randomness import generator

WAY, SHOT, QUERIES = 3, 2, 4


def episodes(n):
    def images(k, purpose):
        return torch.randint(
            256, (n, WAY * k, 1, 6, 6), generator=generator(0, purpose), dtype=torch.uint8
        ), torch.arange(WAY).repeat_interleave(k).expand(n, -1)

    return Episode(Batch(*images(SHOT, "support")), Batch(*images(QUERIES, "query")))


def one(batches, index):
    return Episode(*(Batch(b.x[index], b.y[index]) for b in batches))


def test_logits_are_minus_squared_distances_to_class_means():
    network = MLP((4, 3)).network()
    theta = torch.randn(network.n_parameters, generator=generator(0, "theta"))
    x = torch.randn(WAY * (SHOT + QUERIES), 4, generator=generator(0, "x"))
    y = torch.tensor([2, 0, 1, 1, 0, 2])
    episode = Episode(Batch(x[:6], y), Batch(x[6:], torch.zeros(12).long()))
    features = network(theta, x)
    for q, logits in enumerate(prototype_logits(network, WAY)(theta, episode)):
        for k in range(WAY):
            mean = features[:6][y == k].mean(0)
            torch.testing.assert_close(logits[k], -((features[6 + q] - mean) ** 2).sum())


def test_predictions_in_blocks_are_those_one_by_one():
    architecture = Conv4((1, 6, 6), 3, 0)
    network, drawn = architecture.network(), episodes(5)
    thetas = torch.stack([architecture.initial_theta(generator(seed, "theta"), 0.1) for seed in (0, 1)])
    predicted = prototype_predictions(network, WAY, thetas, drawn, at_once=2)
    assert predicted.shape == (2, 5, WAY * QUERIES)
    for seed in (0, 1):
        for index in range(5):
            logits = prototype_logits(network, WAY)(thetas[seed], one(drawn, index))
            assert torch.equal(predicted[seed, index], logits.argmax(-1))
    loss = prototypical_loss(network, WAY)(thetas[0], one(drawn, 0))
    log_p = prototype_logits(network, WAY)(thetas[0], one(drawn, 0)).log_softmax(-1)
    torch.testing.assert_close(loss, -log_p.gather(1, drawn.query.y[0][:, None]).mean())


def test_nearest_neighbours_are_nearest():
    drawn = episodes(2)
    found = nearest_neighbours(drawn)
    for index in range(2):
        support, query = one(drawn, index)
        for q in range(WAY * QUERIES):
            distances = [((query.x[q].double() - s.double()) ** 2).sum().item() for s in support.x]
            assert found[index, q] == support.y[distances.index(min(distances))]
