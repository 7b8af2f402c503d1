"""What holds for every task family."""

import pytest
import torch

from metalib.randomness import generator
from metalib.tasks import Sinusoid

FAMILIES = {"sinusoid": Sinusoid(), "narrow sinusoid": Sinusoid((1.0, 2.0), (0.0, 0.5), (-1.0, 3.0))}


@pytest.fixture(params=FAMILIES, name="family")
def _family(request):
    return FAMILIES[request.param]


def test_same_generator_key_same_episodes(family):
    first, second = (family.draw_episodes(generator(1, "episodes"), (3, 4), 5, 6) for _ in range(2))
    assert all(
        torch.equal(a, b) for a, b in zip((*first.support, *first.query), (*second.support, *second.query), strict=True)
    )


def test_episode_shapes(family):
    episode = family.draw_episodes(generator(1, "episodes"), (3, 4), 5, 6)
    assert episode.support.x.shape == episode.support.y.shape == (3, 4, 5, 1)
    assert episode.query.x.shape == episode.query.y.shape == (3, 4, 6, 1)


def test_support_and_query_share_no_point(family):
    episode = family.draw_episodes(generator(1, "episodes"), (50,), 20, 20)
    for support, query in zip(episode.support.x, episode.query.x, strict=True):
        assert not set(support.flatten().tolist()) & set(query.flatten().tolist())


def test_description_survives_storage(family):
    assert type(family).from_dict(family.to_dict()) == family
