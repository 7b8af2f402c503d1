"""Which training of fully connected networks the stages give to the kernel."""

import threading
from pathlib import Path

import pytest

from metalib.compilation import repeat_eagerly
from metalib.compilation.repeat import at
from metalib.config import load_params
from metalib.meta_training.fused_mlp import kernel_obstacle
from metalib.meta_training.supervised import MetaStep, initial_state
from metalib.networks import MLP
from metalib.tasks import Sinusoid
from stages import meta_train, train_baseline
from stages.ablation import variants
from stages.jobs import Control
from stages.meta_train_ablation import params_of
from stages.mlp_kernel import FROM_STEPS, mlp_compilation, with_mlp_kernel
from stages.training import SMALL_LEARNER, Trainer
from stages.update_rules import MetaLearner

ROOT = Path(__file__).resolve().parent.parent
PARAMS = load_params(ROOT / "params.yaml")
NETWORK = MLP((1, 40, 40, 1))


@pytest.mark.parametrize(
    ("inner_steps", "shots", "from_steps"),
    [(1, (5, 10, 20), FROM_STEPS), (2, (5, 10, 20), FROM_STEPS), (3, (5, 10, 20), 10_000), (0, (), FROM_STEPS)],
)
def test_when_compiling_pays(inner_steps, shots, from_steps):
    found = mlp_compilation([NETWORK], inner_steps, shots)
    assert found.from_steps == from_steps
    assert (found == SMALL_LEARNER) == (from_steps == 10_000)


def test_a_compiled_program_stands_in_for_a_kernel_that_cannot_be_built(tmp_path, monkeypatch):
    monkeypatch.setattr("metalib.compilation.native.load", lambda source, folder, cxx: None)
    monkeypatch.setattr("stages.mlp_kernel.obstacle", lambda folder: None)
    assert mlp_compilation([NETWORK], 1, (10,)).obstacle(tmp_path) is None
    monkeypatch.setattr("stages.mlp_kernel.obstacle", lambda folder: "no compiler at all")
    assert mlp_compilation([NETWORK], 1, (10,)).obstacle(tmp_path) == "no compiler at all"


def test_one_network_that_is_too_narrow_is_left_to_compiled_programs():
    assert mlp_compilation([NETWORK, MLP((1, 9, 1))], 1, (10,)) == SMALL_LEARNER


def test_eager_training_stays_eager(tmp_path):
    assert with_mlp_kernel(repeat_eagerly, Trainer("cpu", "eager", tmp_path, 30.0)) is repeat_eagerly


def default_runs():
    """Every MAML run on sinusoids of the default scale, its settings and K."""
    yield from ((PARAMS, shots) for shots in PARAMS.meta_train.shots)
    yield from ((params_of(PARAMS, variant), PARAMS.ablation.shots) for variant in set(variants(PARAMS).values()))


def test_the_default_settings_are_for_the_kernel(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    folder = tmp_path / ".cache" / "programs"
    if reason := kernel_obstacle(folder):
        pytest.skip(f"the kernel cannot be built here: {reason}")
    served, epsilons = [], set()

    def run(trainer, name, objective, adam, phi, draw, n_steps, seeds, control, backend, averaged_share=0.0):
        epsilons.add(adam.epsilon)
        state = initial_state(phi, adam)
        served.append(backend(MetaStep(objective, adam), state, at(draw(0, 1), 0)))

    def not_served(step, state, data):
        raise AssertionError(f"the kernel does not serve {step}")

    monkeypatch.setattr(Trainer, "run", run)
    monkeypatch.setattr(Trainer, "loop_backend", lambda trainer: not_served)
    trainer, control = Trainer("cpu", "compiled", tmp_path, 30.0), Control(lambda _: None, threading.Event())
    for params, shots in default_runs():
        meta_train.meta_train(params, MetaLearner.MAML, Sinusoid(), shots, (0,), trainer, control)
    assert epsilons == {PARAMS.meta_train.epsilon}
    for method in (train_baseline.Method.ORACLE, train_baseline.Method.PRETRAINED):
        train_baseline.train_baseline(PARAMS, Sinusoid(), method, 1, trainer, control)
    assert len(served) == 3 + len(set(variants(PARAMS).values())) + 2
