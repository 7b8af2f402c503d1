"""Every tensor of a meta-step stays on its device, and none is read by Python: what CUDA, and CUDA graphs, ask for.

The device of these tests is PyTorch's "meta": its tensors hold no numbers, refuse to be read, and do not mix with those
of the CPU but scalars, so that it finds without a GPU most of what a GPU would refuse.
"""

import pytest
import torch
from torch.utils._pytree import tree_leaves

from metalib.losses import Batch, CrossEntropy, Episode, MeanSquaredError, MinibatchEpisode
from metalib.meta_training.adam import Adam
from metalib.meta_training.averaging import empty_average
from metalib.meta_training.objectives import LossWithoutAdaptation, QueryLossAfterAdaptation
from metalib.meta_training.supervised import MetaStep, initial_state
from metalib.networks import MLP, Conv4, FullyConnected
from tests.contracts.test_update_rules import RULES

SEEDS, TASKS = 2, 3
ADAM = Adam(clip_norm=0.25, cosine_steps=10, constant_steps=5)
REGRESSION = MeanSquaredError(MLP((1, 8, 1)).network())
IMAGES: dict[str, Conv4 | FullyConnected] = {
    "conv4, stride": Conv4((1, 12, 9), 3, 4),
    "conv4, max pool": Conv4((2, 16, 17), 3, 4, "max_pool"),
    "fully connected": FullyConnected((1, 4, 4), (6, 5), 4),
}


def examples(n, shape=(1,), device="meta"):
    return Batch(*(torch.empty(SEEDS, TASKS, n, *each, device=device) for each in (shape, (1,))))


def images(n, shape):
    x = torch.empty(SEEDS, TASKS, n, *shape, dtype=torch.uint8, device="meta")
    return Batch(x, torch.empty(SEEDS, TASKS, n, dtype=torch.int64, device="meta"))


def devices_after_a_step(objective, n_phi, data):
    state = initial_state(torch.empty(SEEDS, n_phi, device="meta"), ADAM)
    return {leaf.device.type for leaf in tree_leaves(MetaStep(objective, ADAM)(state, data))}


@pytest.mark.parametrize("name", RULES)
def test_of_every_update_rule(name):
    rule = RULES[name]
    objective = QueryLossAfterAdaptation(REGRESSION, rule, 2)
    n_phi = REGRESSION.network.n_parameters + rule.n_omega
    assert devices_after_a_step(objective, n_phi, Episode(examples(5), examples(6))) == {"meta"}


@pytest.mark.parametrize("name", IMAGES)
def test_of_every_image_network(name):
    architecture = IMAGES[name]
    network = architecture.network()
    data = Episode(*(images(n, architecture.input_shape) for n in (4, 8)))
    objective = QueryLossAfterAdaptation(CrossEntropy(network), RULES["gradient descent"], 2)
    assert devices_after_a_step(objective, network.n_parameters, data) == {"meta"}


def test_of_inner_batches_and_of_training_without_an_inner_loop():
    n_phi, rule = REGRESSION.network.n_parameters, RULES["lstm"]
    order = torch.empty(SEEDS, TASKS, 2, 3, dtype=torch.int64, device="meta")
    data = MinibatchEpisode(examples(5), examples(6), order)
    assert devices_after_a_step(QueryLossAfterAdaptation(REGRESSION, rule, 2), n_phi + rule.n_omega, data) == {"meta"}
    assert devices_after_a_step(LossWithoutAdaptation(REGRESSION), n_phi, examples(5)) == {"meta"}


def test_the_average_of_phi_stays_there():
    phi = torch.empty(SEEDS, 7, device="meta")
    assert empty_average(phi).include(phi).total.device.type == "meta"


def test_a_tensor_of_another_device_would_be_found():
    data = Episode(examples(5, device="cpu"), examples(6))
    objective = QueryLossAfterAdaptation(REGRESSION, RULES["gradient descent"], 1)
    with pytest.raises(RuntimeError, match="device"):
        devices_after_a_step(objective, REGRESSION.network.n_parameters, data)
