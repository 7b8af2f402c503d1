"""The names under which stages write the fine-tuning rates they tried."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from metalib.config import MachineSettings, load_params
from metalib.tasks.image_tasks import Condition
from stages import evaluate, evaluate_classifier

PARAMS = load_params(Path(__file__).resolve().parent.parent / "params.yaml")
ALIKE = (0.1234567, 0.1234568)
NOTHING: Any = None
METHOD: Any = SimpleNamespace(method="scratch", rule=None, phi=None)


def tried_on_sinusoids(rates, monkeypatch):
    task_set = SimpleNamespace(shots=lambda k: None, query=None)
    monkeypatch.setattr(evaluate, "load_task_set", lambda path: task_set)
    monkeypatch.setattr(evaluate, "choose_rate", lambda *_: (rates[0], {rate: 10 * rate for rate in rates}))
    settings = PARAMS.evaluate.model_copy(update={"finetune_rates": rates})
    return evaluate._rule(settings, METHOD, NOTHING, Path("data"), 5)[1]


def tried_on_images(rates, monkeypatch):
    found = torch.tensor(rates, dtype=torch.float64)[:, None, None] / 10
    monkeypatch.setattr(evaluate_classifier, "run_jobs", lambda *_: [found])
    settings = PARAMS.evaluate_classifier.model_copy(update={"finetune_rates": rates})
    run: Any = SimpleNamespace(params=SimpleNamespace(evaluate_classifier=settings), machine=MachineSettings())
    condition = Condition(5, 1)
    subject: Any = SimpleNamespace(name="scratch", condition=condition, count=lambda split: 1, load=lambda: METHOD)
    return evaluate_classifier._chosen_rates(run, [subject])[condition]


CASES = [
    (tried_on_sinusoids, PARAMS.evaluate.finetune_rates),
    (tried_on_images, PARAMS.evaluate_classifier.finetune_rates),
]


@pytest.mark.parametrize(("tried", "shipped"), CASES)
def test_no_two_rates_have_one_name(monkeypatch, tried, shipped):
    found = tried(ALIKE, monkeypatch)
    assert list(found) == ["chosen", "0.1234567", "0.1234568"]
    assert found["0.1234567"] < found["0.1234568"]


@pytest.mark.parametrize(("tried", "shipped"), CASES)
def test_the_rates_of_the_settings_have_the_names_they_always_had(monkeypatch, tried, shipped):
    assert list(tried(shipped, monkeypatch)) == ["chosen", *(f"{rate:g}" for rate in shipped)]
