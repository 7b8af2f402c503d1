"""The decay of the outer learning rate: a setting of both meta-learners on sinusoids that counts as such."""

from pathlib import Path

import pytest

from metalib.config import load_params
from metalib.meta_training.checkpoints import state_key
from metalib.tasks import Sinusoid
from metalib.tasks.dataset import save_distribution
from stages import meta_train
from stages.update_rules import MetaLearner

PARAMS = load_params(Path(__file__).resolve().parent.parent / "params.yaml")


def with_decay(method, decay):
    section = "meta_train_lstm" if method is MetaLearner.LSTM else "meta_train"
    settings = getattr(PARAMS, section).model_copy(update={"decay": decay})
    return PARAMS.model_copy(update={section: settings})


def test_maml_keeps_the_constant_rate_of_its_paper():
    assert PARAMS.meta_train.decay == "none"


@pytest.mark.parametrize("method", MetaLearner)
def test_saved_state_of_another_decay_is_not_continued(tmp_path, method):
    save_distribution(tmp_path, Sinusoid())
    keys = {
        state_key(meta_train._determinants(with_decay(method, decay), method, tmp_path)) for decay in ("none", "cosine")
    }
    assert len(keys) == 2


@pytest.mark.parametrize("method", MetaLearner)
def test_the_cosine_spans_the_run(method):
    constant, cosine = (
        meta_train.outer_adam(meta_train._settings(with_decay(method, decay), method)) for decay in ("none", "cosine")
    )
    assert constant.cosine_steps is None
    settings = meta_train._settings(PARAMS, method)
    assert cosine.cosine_steps == settings.meta_steps
    assert cosine.learning_rate == settings.learning_rate
    assert cosine.clip_norm == settings.clip_norm
