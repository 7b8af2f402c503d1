"""Episodes of image classes: what is drawn, from which classes and examples, and what is refused."""

import dataclasses
import math

import pytest
import torch

from metalib.randomness import generator
from metalib.storage import StorageError
from metalib.tasks.image_classes import (
    EpisodeIndex,
    ImageClasses,
    load_episode_index,
    load_image_classes,
    save_episode_index,
    save_image_classes,
)

SHARED = pytest.mark.parametrize("shared", [True, False])


def numbered(n_classes, n_examples, shared=False, missing=()):
    """Classes whose 2 x 2 images say class (first pixel) and example (second pixel)."""
    images = torch.zeros(n_classes, n_examples, 1, 2, 2, dtype=torch.uint8)
    images[..., 0, 0] = torch.arange(n_classes)[:, None, None]
    images[..., 0, 1] = torch.arange(n_examples)[:, None]
    available = torch.ones(n_classes, n_examples, dtype=torch.bool)
    for place in missing:
        available[place] = False
        images[place] = 0
    return ImageClasses(images, available, tuple(f"class {row}" for row in range(n_classes)), shared)


def draw(classes, n, way=5, shot=2, queries=3, seed=0):
    return classes.draw_episodes(generator(seed, "episodes"), (n,), way, shot, queries)


def test_a_hand_worked_episode():
    index = EpisodeIndex(torch.tensor([[3, 1]]), torch.tensor([[[2], [0]]]), torch.tensor([[[0, 1], [4, 3]]]))
    support, query = numbered(4, 5).episodes(index)
    assert support.x.shape == (1, 2, 1, 2, 2)
    assert support.x.dtype == torch.uint8
    assert support.x[0, :, 0, 0].tolist() == [[3, 2], [1, 0]]
    assert query.x[0, :, 0, 0].tolist() == [[3, 0], [3, 1], [1, 4], [1, 3]]
    assert support.y.tolist() == [[0, 1]]
    assert query.y.tolist() == [[0, 0, 1, 1]]


def test_images_drawn_one_by_one_are_those_that_there_are():
    classes = numbered(3, 4)
    missing = ImageClasses(
        classes.images, torch.tensor([[1, 1, 1, 0], [1, 0, 1, 1], [0, 1, 1, 1]]).bool(), *rest(classes)
    )
    x, y = missing.draw_examples(generator(0, "examples"), (2, 5000))
    drawn = {(int(k), *pixels) for k, pixels in zip(y.flatten(), x.flatten(0, 1)[:, 0, 0].tolist(), strict=True)}
    assert len(drawn) == 9
    assert all(k == pixels[0] and bool(missing.available[k, pixels[1]]) for k, *pixels in drawn)


def rest(classes):
    return classes.names, classes.shared_examples


@SHARED
def test_classes_are_distinct_and_support_and_query_disjoint(shared):
    index = draw(numbered(7, 12, shared, missing=[(2, 3), (5, 0)]), 5000)
    ordered = index.classes.sort(dim=-1).values
    assert (ordered.diff(dim=-1) > 0).all()
    examples = torch.cat([index.support, index.query], dim=-1).sort(dim=-1).values
    assert (examples.diff(dim=-1) > 0).all()


@SHARED
def test_only_available_examples_are_drawn(shared):
    missing = [(row, row) for row in range(7)]
    index = draw(numbered(7, 9, shared, missing), 5000)
    for examples in (index.support, index.query):
        assert (examples != index.classes[..., None]).all()


def test_shared_examples_part_over_all_classes_of_an_episode():
    index = draw(numbered(7, 12, True, [(2, 3)]), 5000)
    both = (index.support.flatten(1)[:, :, None] == index.query.flatten(1)[:, None, :]).any()
    assert not both
    independent = draw(numbered(7, 12, False, [(2, 3)]), 50)
    assert (independent.support.flatten(1)[:, :, None] == independent.query.flatten(1)[:, None, :]).any()


def test_shared_examples_part_in_equal_halves_where_the_counts_allow():
    classes = numbered(20, 12, True)
    index = classes.draw_episodes(generator(0, "halves"), (200,), 20, 5, 5)
    for examples in (index.support, index.query):
        # 20 draws of 5 out of the 6 of a half leave none of the 6 out but with probability 20 * 6^-20
        assert all(len(set(episode.flatten().tolist())) == 6 for episode in examples)


def test_shared_parts_are_unequal_where_the_counts_need_it():
    index = numbered(5, 12, True, [(0, 0)]).draw_episodes(generator(0, "unequal"), (500,), 5, 1, 8)
    assert max(len(set(episode.flatten().tolist())) for episode in index.support) == 3
    assert min(len(set(episode.flatten().tolist())) for episode in index.query) >= 8


@SHARED
def test_classes_and_examples_are_uniform(shared):
    """Each pair (label, class) and each example has the frequency of a fair draw, within 5 standard errors."""
    n, n_classes, n_examples = 20_000, 6, 8
    index = draw(numbered(n_classes, n_examples, shared), n, way=3, shot=1, queries=2)
    for label in range(3):
        counts = torch.bincount(index.classes[:, label], minlength=n_classes)
        assert_fair(counts, n, 1 / n_classes)
        assert_fair(torch.bincount(index.support[:, label, 0], minlength=n_examples), n, 1 / n_examples)
        for place in range(2):
            assert_fair(torch.bincount(index.query[:, label, place], minlength=n_examples), n, 1 / n_examples)


def test_every_ordered_set_of_classes_is_equally_likely():
    n = 24_000
    index = draw(numbered(4, 5), n, way=3, shot=1, queries=1)
    counts = torch.bincount(index.classes @ torch.tensor([16, 4, 1]), minlength=64)
    assert (counts > 0).sum() == 24
    assert_fair(counts[counts > 0], n, 1 / 24)


def test_all_classes_can_take_part():
    index = draw(numbered(5, 5), 100)
    assert (index.classes.sort(dim=-1).values == torch.arange(5)).all()


def assert_fair(counts, n, probability):
    error = math.sqrt(n * probability * (1 - probability))
    assert (counts - n * probability).abs().max() < 5 * error, counts


def test_same_generator_same_episodes_in_any_shape():
    classes = numbered(30, 12, True)
    first, again, other = draw(classes, 20), draw(classes, 20), draw(classes, 20, seed=1)
    assert all(map(torch.equal, first, again))
    assert not torch.equal(first.classes, other.classes)
    shaped = classes.draw_episodes(generator(0, "shape"), (4, 5), 3, 2, 1)
    assert [tuple(part.shape) for part in shaped] == [(4, 5, 3), (4, 5, 3, 2), (4, 5, 3, 1)]
    assert classes.episodes(shaped).support.x.shape == (4, 5, 6, 1, 2, 2)


def test_rotations_are_further_classes():
    classes = dataclasses.replace(
        numbered(2, 1), images=torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]]).byte().reshape(2, 1, 1, 2, 2)
    )
    turned = classes.with_rotations()
    assert turned.names[::2] == ("class 0", "class 0 turned 90", "class 0 turned 180", "class 0 turned 270")
    # [[1, 2], [3, 4]] anticlockwise: the right column becomes the top row
    expected = [[1, 2, 3, 4], [2, 4, 1, 3], [4, 3, 2, 1], [3, 1, 4, 2]]
    assert turned.images[::2].flatten(1).tolist() == expected
    assert turned.available.shape == (8, 1)


def test_turns_leave_out_what_is_no_class_of_its_own():
    turns = torch.tensor([[True, True, False, False], [True, False, False, True]])
    turned = dataclasses.replace(numbered(2, 3, missing=[(1, 2)]), turns=turns).with_rotations()
    assert turned.names == ("class 0", "class 1", "class 0 turned 90", "class 1 turned 270")
    assert turned.available.sum(dim=1).tolist() == [3, 2, 3, 2]
    assert turned.with_rotations().names == turned.names


@pytest.mark.parametrize(
    ("shared", "way", "shot", "queries", "message"),
    [
        (False, 8, 1, 1, "8-way .* there are 7 classes, so way must be 1 to 7"),
        (False, 5, 4, 8, "4 support and 8 query .* 12 examples a class, of which 1 can be missing.* 11 or fewer"),
        (True, 5, 5, 6, "5 support and 6 query .* must be 10 or fewer"),
        (True, 5, 0, 6, "at least 1"),
    ],
)
def test_episodes_that_not_every_class_can_serve_are_refused(shared, way, shot, queries, message):
    classes = numbered(7, 12, shared, [(2, 3)])
    with pytest.raises(ValueError, match=message):
        draw(classes, 3, way, shot, queries)


@pytest.mark.parametrize(("shared", "shot", "queries"), [(False, 1, 10), (True, 1, 9), (True, 9, 1), (True, 5, 5)])
def test_the_most_that_is_allowed_is_served(shared, shot, queries):
    missing = [(row, 3) for row in range(7)]
    index = draw(numbered(7, 12, shared, missing), 2000, 5, shot, queries)
    assert not (torch.cat([index.support, index.query], dim=-1) == 3).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": torch.zeros(2, 3, 1, 2, 2)}, "uint8"),
        ({"available": torch.ones(2, 2).bool()}, r"available must be bool \[2, 3\], got torch.bool \[2, 2\]"),
        ({"names": ("a",)}, r"names must be one a class \(2\), got 1"),
        ({"turns": torch.ones(2, 3).bool()}, r"turns must be bool \[2, 4\]"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(numbered(2, 3), **change)


def test_oblong_images_cannot_be_turned():
    oblong = ImageClasses(torch.zeros(1, 1, 1, 2, 3).byte(), torch.ones(1, 1).bool(), ("a",), False)
    with pytest.raises(ValueError, match="square images can be turned, got 2 x 3"):
        oblong.with_rotations()


@pytest.mark.parametrize("turns", [None, torch.eye(4).bool()[[0, 1, 2]]])
def test_classes_and_episodes_survive_storage(tmp_path, turns):
    classes = dataclasses.replace(numbered(3, 4, True, [(1, 2)]), turns=turns)
    save_image_classes(tmp_path / "classes", classes)
    loaded = load_image_classes(tmp_path / "classes")
    assert torch.equal(loaded.images, classes.images)
    assert torch.equal(loaded.available, classes.available)
    assert (loaded.names, loaded.shared_examples) == (classes.names, True)
    assert (loaded.turns is None) == (turns is None)
    assert loaded.turns is None or torch.equal(loaded.turns, turns)
    index = draw(classes, 3, 2, 1, 1)
    save_episode_index(tmp_path / "index", index)
    assert all(map(torch.equal, load_episode_index(tmp_path / "index"), index))
    with pytest.raises(StorageError, match="image classes"):
        load_image_classes(tmp_path / "index")
