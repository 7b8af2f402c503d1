"""The decay of the outer learning rate: a setting of every meta-learner on labelled tasks that counts as such."""

from pathlib import Path
from typing import get_args

import pytest

from metalib.config import Decay, load_params
from metalib.meta_training.adam import Adam
from metalib.meta_training.checkpoints import state_key
from metalib.tasks import Sinusoid
from metalib.tasks.dataset import save_distribution
from stages import meta_train
from stages.training import outer_adam
from stages.update_rules import MetaLearner

PARAMS = load_params(Path(__file__).resolve().parent.parent / "params.yaml")


def with_decay(method, decay):
    section = "meta_train_lstm" if method is MetaLearner.LSTM else "meta_train"
    settings = getattr(PARAMS, section).model_copy(update={"decay": decay})
    return PARAMS.model_copy(update={section: settings})


def test_maml_on_sinusoids_keeps_the_constant_rate_of_its_paper():
    assert PARAMS.meta_train.decay == "none"


@pytest.mark.parametrize("method", MetaLearner)
def test_saved_state_of_another_decay_is_not_continued(tmp_path, method):
    save_distribution(tmp_path, Sinusoid())
    decays = get_args(Decay)
    keys = {state_key(meta_train._determinants(with_decay(method, decay), method, tmp_path)) for decay in decays}
    assert len(keys) == len(decays) == 3


def test_each_decay_spans_its_part_of_the_run():
    assert outer_adam(0.01, "none", 1000, 0.25) == Adam(0.01, clip_norm=0.25)
    assert outer_adam(0.01, "none", 1000, None, 1e-5) == Adam(0.01, epsilon=1e-5)
    assert outer_adam(0.01, "cosine", 1000, None) == Adam(0.01, cosine_steps=1000)
    assert outer_adam(0.01, "late_cosine", 1000, None) == Adam(0.01, cosine_steps=250, constant_steps=750)


@pytest.mark.parametrize("n_steps", [1, 2, 3, 10])
def test_the_rate_of_a_short_run_falls_too(n_steps):
    adam = outer_adam(0.01, "late_cosine", n_steps, None)
    falling = adam.cosine_steps or 0
    assert falling >= 1
    assert adam.constant_steps + falling == n_steps
