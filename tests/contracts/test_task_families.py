"""What holds for every task family."""

from functools import cache

import pytest
import torch

from metalib.randomness import generator
from metalib.tasks import Sinusoid, SinusoidPool
from metalib.tasks.glyphs import draw_glyphs
from metalib.tasks.image_classes import ImageClasses

WAY = 5


def independent_images():
    """Classes without shared examples, as of Omniglot; every image is unique."""
    images = torch.randint(256, (9, 12, 1, 5, 5), generator=generator(0, "images"), dtype=torch.uint8)
    return ImageClasses(images, torch.ones(9, 12).bool(), tuple("abcdefghi"), shared_examples=False)


@cache
def families():
    return {
        "sinusoid": Sinusoid(),
        "narrow sinusoid": Sinusoid((1.0, 2.0), (0.0, 0.5), (-1.0, 3.0)),
        "pool of sinusoids": SinusoidPool(Sinusoid(), Sinusoid().draw_tasks(generator(0, "pool"), (7,))),
        "glyphs": draw_glyphs(0)["test"],
        "images": independent_images(),
    }


NAMES = ("sinusoid", "narrow sinusoid", "pool of sinusoids", "glyphs", "images")


@pytest.fixture(params=NAMES, name="family")
def _family(request):
    return families()[request.param]


def draw(family, key, shape, n_support, n_query):
    """Draw episodes; of images, ``n_support`` and ``n_query`` of each of WAY classes."""
    numbers = generator(key, "episodes")
    if isinstance(family, Sinusoid | SinusoidPool):
        return family.draw_episodes(numbers, shape, n_support, n_query)
    return family.episodes(family.draw_episodes(numbers, shape, WAY, n_support, n_query))


def parts(episode):
    return *episode.support, *episode.query


def test_same_generator_key_same_episodes(family):
    first, second = (parts(draw(family, 1, (3, 4), 5, 6)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_another_key_gives_other_episodes(family):
    assert not torch.equal(draw(family, 1, (3,), 5, 6).support.x, draw(family, 2, (3,), 5, 6).support.x)


def test_episode_shapes(family):
    episode = draw(family, 1, (3, 4), 5, 6)
    each = 1 if isinstance(family, Sinusoid | SinusoidPool) else WAY
    for batch, n in ((episode.support, 5 * each), (episode.query, 6 * each)):
        assert batch.x.shape[:3] == batch.y.shape[:3] == (3, 4, n)


def test_support_and_query_share_no_example(family):
    episode = draw(family, 1, (40,), 6, 6)
    for support, query in zip(episode.support.x, episode.query.x, strict=True):
        assert not {tuple(x.flatten().tolist()) for x in support} & {tuple(x.flatten().tolist()) for x in query}


@pytest.mark.parametrize("name", ["sinusoid", "narrow sinusoid"])
def test_description_survives_storage(name):
    family = families()[name]
    assert type(family).from_dict(family.to_dict()) == family


@pytest.mark.parametrize("name", ["glyphs", "images"])
def test_labels_are_balanced_and_of_the_classes_drawn(name):
    episode = draw(families()[name], 1, (20,), 2, 3)
    for batch, n in ((episode.support, 2), (episode.query, 3)):
        assert bool((batch.y == torch.arange(WAY).repeat_interleave(n)).all())
