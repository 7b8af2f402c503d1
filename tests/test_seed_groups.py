"""Seeds of one K in one program, or each in its own: which, and that it makes no difference but rounding."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from metalib.config import load_params
from metalib.errors import Interrupted
from metalib.tasks import Sinusoid
from stages.jobs import Control
from stages.meta_train import meta_train, seed_groups
from stages.training import Trainer
from stages.update_rules import MetaLearner

ROOT = Path(__file__).resolve().parent.parent
SEEDS = (3, 4)


def trainer(folder, backend="eager", device="cpu"):
    return Trainer(device, backend, folder, every_seconds=0.0)


def params(steps):
    loaded = load_params(ROOT / "params.yaml")
    return loaded.model_copy(update={"meta_train": loaded.meta_train.model_copy(update={"meta_steps": steps})})


def run(folder, seeds, steps=20, advance=lambda _: None, stop=None):
    torch.set_num_threads(1)
    control = Control(advance, stop or threading.Event())
    return meta_train(params(steps), MetaLearner.MAML, Sinusoid(), 5, seeds, trainer(folder), control)


@pytest.mark.parametrize(
    ("method", "backend", "groups"),
    [
        (MetaLearner.MAML, "compiled", [(3,), (4,)]),
        (MetaLearner.MAML, "eager", [(3, 4)]),
        (MetaLearner.LSTM, "compiled", [(3,), (4,)]),
        (MetaLearner.LSTM, "eager", [(3,), (4,)]),
    ],
)
def test_eager_maml_and_what_cuda_runs_train_their_seeds_together(tmp_path, method, backend, groups):
    assert seed_groups(method, SEEDS, trainer(tmp_path, backend)) == groups
    assert seed_groups(method, SEEDS, trainer(tmp_path, backend, "cuda")) == [(3, 4)]


def test_seeds_trained_together_are_those_trained_alone(tmp_path):
    together, curve = run(tmp_path / "together", SEEDS)
    alone = [run(tmp_path / "alone", (seed,)) for seed in SEEDS]
    assert together.shape == (2, 1761)
    np.testing.assert_allclose(together, np.concatenate([phi for phi, _ in alone]), rtol=1e-3, atol=1e-5)
    assert not np.allclose(together[0], together[1], atol=1e-3)
    assert curve[20] == pytest.approx(sum(each[20] for _, each in alone) / 2, rel=1e-4)


def test_a_group_that_is_stopped_continues_to_the_same_bytes(tmp_path):
    whole, curve = run(tmp_path / "whole", SEEDS, steps=150)
    stop = threading.Event()
    with pytest.raises(Interrupted, match="stopped within a chunk"):
        run(tmp_path / "parts", SEEDS, 150, lambda done: stop.set() if done else None, stop)
    seen: list[int] = []
    continued, continued_curve = run(tmp_path / "parts", SEEDS, 150, seen.append)
    assert seen[0] == 100
    assert continued.tobytes() == whole.tobytes()
    assert continued_curve == curve
