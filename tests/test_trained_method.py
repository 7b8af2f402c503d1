from dataclasses import replace

import pytest
import torch

import metalib
from metalib import MLP, GradientDescent, TrainedMethod
from metalib.losses import Batch, MeanSquaredError
from metalib.randomness import generator
from metalib.storage import StorageError, save_tensors


@pytest.fixture(name="method")
def _method():
    architecture = MLP((1, 8, 1))
    phi = torch.stack([architecture.initial_theta(generator(s, "initial theta"), 0.5) for s in (0, 7)])
    return TrainedMethod(
        "maml", architecture, "mean_squared_error", phi, (0, 7), GradientDescent(0.05), 2, 10, {"learning_rate": 0.001}
    )


def support():
    x = torch.linspace(-1, 1, 5)[:, None]
    return x, x**2


def test_saved_and_loaded_learners_predict_the_same(method, tmp_path):
    method.save(tmp_path / "k10.safetensors")
    loaded = TrainedMethod.load(tmp_path / "k10.safetensors")
    assert loaded.seeds == (0, 7)
    assert loaded.rule == method.rule
    assert loaded.settings == method.settings
    x, y = support()
    for index in (0, 1):
        assert torch.equal(method.learner(index).adapt(x, y)(x), loaded.learner(index).adapt(x, y)(x))


def test_adapting_is_gradient_descent_on_the_support(method):
    x, y = support()
    theta = method.phi[0].clone().requires_grad_()
    loss = MeanSquaredError(method.architecture.network())
    (gradient,) = torch.autograd.grad(loss(theta, Batch(x, y)), theta)
    expected = method.architecture.network()(theta - 0.05 * gradient, x)
    torch.testing.assert_close(method.learner(0).adapt(x, y, steps=1)(x), expected)


def test_a_learner_is_not_changed_by_adapting(method):
    learner = method.learner()
    x, y = support()
    first = learner.adapt(x, y)(x)
    learner.adapt(x, -50 * y)
    assert torch.equal(learner.adapt(x, y)(x), first)


def test_by_default_it_takes_the_steps_of_meta_training(method):
    x, y = support()
    learner = method.learner()
    assert torch.equal(learner.adapt(x, y)(x), learner.adapt(x, y, steps=2)(x))


def test_bad_calls_are_refused(method):
    x, y = support()
    with pytest.raises(ValueError, match=r"x must be \[k, 1\] and y \[k, 1\], got \[5\]"):
        method.learner().adapt(x[:, 0], y)
    with pytest.raises(ValueError, match="steps must be 0 or more"):
        method.learner().adapt(x, y, steps=-1)
    with pytest.raises(ValueError, match="index must be from 0 to 1, got 2"):
        method.learner(2)
    with pytest.raises(ValueError, match="oracle brings no update rule"):
        TrainedMethod("oracle", method.architecture, method.loss, method.phi, (0, 7), None, 0, None, {}).learner()


def test_numbers_of_other_types_are_taken_as_those_of_the_parameters(method):
    x, y = support()
    expected = method.learner().adapt(x, y)(x)
    assert torch.equal(method.learner().adapt(x.double(), y.double())(x.double()), expected)
    classifier = TrainedMethod("maml", MLP((1, 8, 3)), "cross_entropy", torch.zeros(1, 43), (0,), method.rule, 1, 1, {})
    classes = torch.tensor([0, 1, 2, 0, 1])
    assert torch.equal(classifier.learner().adapt(x, classes.int())(x), classifier.learner().adapt(x, classes)(x))


def test_files_that_do_not_fit_are_refused(method, tmp_path):
    path = tmp_path / "k10.safetensors"
    replace(method, phi=method.phi[:, :-1]).save(path)
    with pytest.raises(StorageError, match=r"parameters of shape \[2, 24\] are not \[2, 25\]; run"):
        TrainedMethod.load(path)
    replace(method, seeds=(0,)).save(path)
    with pytest.raises(StorageError, match=r"parameters of shape \[2, 25\] are not \[1, 25\]; run"):
        TrainedMethod.load(path)
    save_tensors(path, "trained method 2", {"phi": method.phi}, {"network": method.architecture.to_dict()})
    with pytest.raises(StorageError, match="it was written by another version"):
        TrainedMethod.load(path)


def test_public_names_load_and_unknown_names_are_explained():
    assert all(getattr(metalib, name) is not None for name in metalib.__all__)
    with pytest.raises(AttributeError, match="it has: .*TrainedMethod"):
        _ = metalib.trained_methods
