"""Returns and speeds of policies survive storage, and what cannot be one is refused."""

import pytest
import torch

from metalib.return_files import Returns, Speeds, load_returns, load_speeds, save_returns, save_speeds
from metalib.storage import StorageError, load_tensors


def returns(method="maml", rates=(0.1, 0.05), shape=(2, 3, 3), task="cheetah_vel", rollouts=20):
    values = rollouts + torch.arange(float(torch.tensor(shape).prod()), dtype=torch.float64).reshape(shape)
    return Returns(task, method, rollouts, rates, 4_000_000, values)


def test_returns_survive_storage(tmp_path):
    path = tmp_path / "returns.safetensors"
    entries = [returns(), returns(rollouts=40, shape=(1, 3, 3)), returns("oracle", (), (1, 3, 1))]
    save_returns(path, entries, {"maml": {"hidden": [100, 100]}})
    assert set(load_tensors(path, "returns 2")[0]) == {"maml-k20", "maml-k40", "oracle-k20"}
    loaded, settings = load_returns(path)
    assert settings == {"maml": {"hidden": [100, 100]}}
    for ours, theirs in zip(loaded, entries, strict=True):
        assert torch.equal(ours.values, theirs.values)
        assert ours.values.dtype == torch.float64
        same = ("task", "method", "rollouts", "rates", "env_steps")
        assert [getattr(ours, name) for name in same] == [getattr(theirs, name) for name in same]


def test_what_are_no_returns_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match="returns of maml with 1 rates must be of shape .seed, goal, 2., got .2, 3, 3."
    ):
        returns(rates=(0.1,))
    with pytest.raises(ValueError, match="unknown method 'scratch'; known: maml, pretrained, random, oracle"):
        returns("scratch")
    with pytest.raises(ValueError, match="unknown task 'ant'"):
        returns(task="ant")
    with pytest.raises(ValueError, match="one entry a method and K is needed, got maml-k20, maml-k40, maml-k20"):
        save_returns(tmp_path / "returns.safetensors", [returns(), returns(rollouts=40), returns()], {})
    with pytest.raises(StorageError, match="is missing"):
        load_returns(tmp_path / "returns.safetensors")


def test_speeds_survive_storage_with_their_ends(tmp_path):
    path = tmp_path / "speeds.safetensors"
    fell = torch.tensor([[0.0, 0.5, torch.nan], [0.0, 1.0, 2.0]])
    goals = torch.tensor([[-1.0], [1.0]])
    save_speeds(path, Speeds("ant_dir", goals, 0.02, {("maml", 0): fell, ("maml", 1): fell + 1}))
    loaded = load_speeds(path)
    assert (loaded.task, loaded.seconds) == ("ant_dir", 0.02)
    assert torch.equal(loaded.goals, goals)
    assert set(loaded.values) == {("maml", 0), ("maml", 1)}
    torch.testing.assert_close(loaded.values["maml", 1], fell + 1, equal_nan=True, rtol=0, atol=0)


def test_speeds_of_other_goals_than_those_named_are_refused(tmp_path):
    speeds = Speeds("ant_dir", torch.tensor([[1.0]]), 0.02, {("random", 0): torch.zeros(2, 5)})
    with pytest.raises(ValueError, match="speeds of random after 0 steps must be of shape .1, time . 1., got .2, 5."):
        save_speeds(tmp_path / "speeds.safetensors", speeds)
