import pytest
import torch

from metalib.errors import Interrupted
from metalib.meta_training.adam import Adam
from metalib.meta_training.checkpoints import Checkpoints, Progress, saved_steps, state_key
from metalib.meta_training.supervised import initial_state


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def state(value):
    return initial_state(torch.full((2, 3), float(value)), Adam())


@pytest.fixture(name="path")
def _path(tmp_path):
    return tmp_path / "key" / "job.safetensors"


def test_what_is_kept_is_restored(path):
    Checkpoints(path, "key", 0.0).keep(Progress(300, state(5), {100: 1.5, 200: 1.25, 300: 0.1 + 0.2}))
    restored = Checkpoints(path, "key", 0.0).restore(state(0))
    assert restored.steps == 300
    assert restored.curve == {100: 1.5, 200: 1.25, 300: 0.1 + 0.2}
    assert torch.equal(restored.state.phi, state(5).phi)
    assert torch.equal(restored.state.adam.step, state(5).adam.step)
    assert saved_steps(path) == 300


def test_two_parts_of_the_state_may_be_the_same_tensor(path):
    tensor = torch.arange(3.0)
    Checkpoints(path, "key", 0.0).keep(Progress(1, (tensor, tensor), {}))
    restored = Checkpoints(path, "key", 0.0).restore((torch.zeros(3), torch.zeros(3)))
    assert [part.tolist() for part in restored.state] == [[0.0, 1.0, 2.0]] * 2


def test_state_of_another_key_is_never_used(path):
    Checkpoints(path, "key", 0.0).keep(Progress(300, state(5), {}))
    assert Checkpoints(path, "other", 0.0).restore(state(0)).steps == 0


@pytest.mark.parametrize("keep", [0, 10, -1])
def test_a_torn_file_counts_as_none(path, keep):
    Checkpoints(path, "key", 0.0).keep(Progress(300, state(5), {}))
    path.write_bytes(path.read_bytes()[:keep])
    restored = Checkpoints(path, "key", 0.0).restore(state(7))
    assert restored.steps == 0
    assert torch.equal(restored.state.phi, state(7).phi)
    assert saved_steps(path) == 0


def test_it_is_saved_no_more_often_than_asked(path):
    clock = Clock()
    checkpoints = Checkpoints(path, "key", 30.0, clock=clock)
    checkpoints.keep(Progress(100, state(1), {}))
    assert saved_steps(path) == 0
    clock.now = 31.0
    checkpoints.keep(Progress(200, state(1), {}))
    assert saved_steps(path) == 200
    clock.now = 60.0
    checkpoints.keep(Progress(300, state(1), {}))
    assert saved_steps(path) == 200


def test_a_requested_stop_saves_and_raises(path):
    checkpoints = Checkpoints(path, "key", 1e9, stop_requested=lambda: True)
    with pytest.raises(Interrupted, match="stopped after 100 steps"):
        checkpoints.keep(Progress(100, state(1), {}))
    assert saved_steps(path) == 100


def test_every_determinant_changes_the_key():
    base = {"seed": 0, "settings": {"rate": 0.1}, "versions": {"torch": "2"}}
    changed = [
        {**base, "seed": 1},
        {**base, "settings": {"rate": 0.2}},
        {**base, "versions": {"torch": "3"}},
        {**base, "more": None},
    ]
    assert len({state_key(each) for each in (base, *changed)}) == 5
    assert state_key(dict(reversed(base.items()))) == state_key(base)
