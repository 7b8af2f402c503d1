"""The ablation: which learners it trains, what they train on, and what the report makes of the scores."""

from pathlib import Path

import pytest
import torch

from metalib.config import load_params
from metalib.randomness import generator
from metalib.reporting.ablation import ablation_table, conclusions, headline_metrics, report_context
from metalib.score_files import ConditionScores, load_condition_scores, save_condition_scores
from metalib.tasks import Sinusoid, SinusoidPool, SinusoidTasks
from stages.ablation import Variant, variants
from stages.meta_train_ablation import params_of, pool

PARAMS = load_params(Path(__file__).resolve().parent.parent / "params.yaml")


def test_every_condition_changes_one_thing():
    found = variants(PARAMS)
    hidden = PARAMS.network.hidden
    assert found["training_tasks", "all"] == found["layers", "2"] == found["units", "40"] == Variant(hidden, None)
    assert found["training_tasks", "16"] == Variant(hidden, 16)
    assert found["layers", "3"] == Variant((40, 40, 40), None)
    assert found["units", "80"] == Variant((80, 80), None)
    assert len({variant.name for variant in found.values()}) == len(set(found.values()))


def test_a_variant_is_trained_as_maml_is():
    changed = params_of(PARAMS, Variant((10, 10), 4))
    assert changed.network.hidden == (10, 10)
    assert changed.meta_train.meta_steps == PARAMS.ablation.meta_steps
    kept = {"inner_rate", "inner_steps", "first_order", "meta_batch", "learning_rate", "decay"}
    for key in kept:
        assert getattr(changed.meta_train, key) == getattr(PARAMS.meta_train, key)


def test_a_smaller_pool_is_part_of_a_larger_one():
    small, large = (pool(PARAMS, Sinusoid(), n, seed=3) for n in (4, 64))
    assert torch.equal(small.tasks.amplitude, large.tasks.amplitude[:4])
    assert torch.equal(small.tasks.phase, large.tasks.phase[:4])
    assert not torch.equal(small.tasks.phase, pool(PARAMS, Sinusoid(), 4, seed=4).tasks.phase)


def test_episodes_are_of_the_pool_s_tasks_each_as_often():
    tasks = SinusoidTasks(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.0, 1.0, 2.0]))
    episodes = SinusoidPool(Sinusoid(), tasks).draw_episodes(generator(0, "pool"), (3000,), 2, 3)
    of_each = tasks.amplitude[:, None] * torch.sin(episodes.query.x[:, None, :, 0] - tasks.phase[:, None])
    matches = (of_each - episodes.query.y[:, None, :, 0]).abs().amax(dim=-1) < 1e-5  # [episode, task]
    assert bool((matches.sum(dim=1) == 1).all())
    counts = matches.sum(dim=0)
    assert bool(((counts - 1000).abs() < 5 * (3000 * 2 / 9) ** 0.5).all())
    support = tasks.amplitude[matches.int().argmax(1), None] * torch.sin(
        episodes.support.x[..., 0] - tasks.phase[matches.int().argmax(1), None]
    )
    torch.testing.assert_close(episodes.support.y[..., 0], support)


def test_an_empty_pool_is_refused():
    with pytest.raises(ValueError, match=r"tasks must have the shape \[n_tasks\], got \[0\]"):
        SinusoidPool(Sinusoid(), SinusoidTasks(torch.zeros(0), torch.zeros(0)))


def made_up(experiment, condition, errors, method="maml", zero=4.0):
    """Return scores of one seed and two tasks, the second of which errs by 0.2 more, at steps 0, 1, ..."""
    values = torch.tensor([errors, [error + 0.2 for error in errors]])[None]
    return ConditionScores(experiment, condition, method, zero, values)


SCORES = [
    made_up("training_tasks", "1", [3.0, 2.0, 1.9]),
    made_up("training_tasks", "16", [3.0, 1.0, 0.5]),
    made_up("training_tasks", "64", [3.0, 1.0, 0.4]),
    made_up("training_tasks", "all", [3.0, 0.9, 0.4]),
    made_up("layers", "2", [3.0, 0.9, 0.4]),
    made_up("layers", "3", [3.9, 3.8, 3.3]),
    made_up("layers", "4", [3.9, 3.8, 3.7]),
    made_up("units", "40", [3.0, 0.9, 0.4]),
    made_up("outside", "as in training", [3.0, 0.9, 0.3]),
    made_up("outside", "as in training", [3.0, 2.0, 1.1], method="pretrained"),
    made_up("outside", "phase outside", [9.0, 3.0, 1.9]),
    made_up("outside", "phase outside", [9.0, 8.0, 7.9], method="pretrained"),
]


def test_the_context_says_how_many_tasks_are_enough_and_what_is_left_outside():
    table = ablation_table(SCORES, 100.0, seed=0, bootstrap_samples=100)
    context = report_context(table)
    assert context["steps"] == 2
    assert (context["fewest"], context["error_fewest"]) == (1, pytest.approx(2.0))
    assert context["error_all"] == pytest.approx(0.5)
    assert context["stuck"] == ["4"]  # 3.8 of 4.0 is left, with three layers 3.4
    assert context["enough"] == 16  # 0.6 is within a quarter of 0.5, and 2.0 is not
    assert context["outside"]["as in training"] == pytest.approx({"MAML": 0.1, "pretrained": 0.3})
    assert context["outside"]["phase outside"] == pytest.approx({"MAML": 0.5, "pretrained": 2.0})
    metrics = headline_metrics(table)["outside"]
    assert metrics["as in training, maml"] == pytest.approx(0.4)
    assert metrics["phase outside, pretrained"] == pytest.approx(8.0)
    assert conclusions(table).startswith(b"\x89PNG")


def test_no_number_of_tasks_may_be_enough():
    few = [s for s in SCORES if s.experiment != "training_tasks" or s.condition in ("1", "all")]
    assert report_context(ablation_table(few, 100.0, seed=0, bootstrap_samples=100))["enough"] is None


def test_diverged_tasks_are_counted_and_left_out_of_the_mean():
    broken = made_up("training_tasks", "1", [3.0, 2.0, 1.9])
    broken.values[0, 1, 2] = torch.inf
    row = ablation_table([broken], 100.0, seed=0, bootstrap_samples=100).iloc[2]
    assert row["n_diverged"] == 1
    assert row["mse_mean"] == pytest.approx(1.9)


def test_the_context_says_what_is_left_out():
    broken = [s for s in SCORES if s.name != "outside-phase outside-maml"]
    broken.append(made_up("outside", "phase outside", [9.0, 3.0, torch.inf]))
    broken[-1].values[0, 0, 2] = 1.0
    context = report_context(ablation_table(broken, 100.0, seed=0, bootstrap_samples=100))
    assert context["left_out"] == ["1 of 2 (phase outside, MAML)"]


def test_scores_by_condition_survive_the_disk(tmp_path):
    save_condition_scores(tmp_path / "scores.safetensors", SCORES, {"shots": 10})
    loaded, settings = load_condition_scores(tmp_path / "scores.safetensors")
    assert settings == {"shots": 10}
    for one, other in zip(loaded, SCORES, strict=True):
        assert (one.name, one.zero_function) == (other.name, other.zero_function)
        assert torch.equal(one.values, other.values)
