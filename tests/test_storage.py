import json

import pytest
import torch

from metalib.storage import StorageError, load_tensors, read_json, save_tensors, write_bytes, write_json

TENSORS = {"a": torch.arange(6, dtype=torch.float32).view(2, 3), "b": torch.tensor(7)}


@pytest.fixture(name="path")
def _path(tmp_path):
    path = tmp_path / "folder" / "file.safetensors"
    save_tensors(path, "test 1", TENSORS, {"settings": {"x": [1, 2], "y": None}})
    return path


def test_what_is_saved_is_loaded(path):
    tensors, header = load_tensors(path, "test 1")
    assert tensors.keys() == TENSORS.keys()
    assert all(
        torch.equal(tensors[name], TENSORS[name]) and tensors[name].dtype == TENSORS[name].dtype for name in TENSORS
    )
    assert header == {"settings": {"x": [1, 2], "y": None}}


def test_same_content_same_bytes(path, tmp_path):
    other = tmp_path / "other.safetensors"
    save_tensors(other, "test 1", dict(reversed(TENSORS.items())), {"settings": {"y": None, "x": [1, 2]}})
    assert other.read_bytes() == path.read_bytes()


def test_a_view_is_stored_like_its_copy(tmp_path):
    whole = torch.arange(10.0)
    save_tensors(tmp_path / "view", "test 1", {"a": whole[::2]}, {})
    assert torch.equal(load_tensors(tmp_path / "view", "test 1")[0]["a"], whole[::2])


def test_missing_file(tmp_path):
    with pytest.raises(StorageError, match="is missing; run the stage that writes it"):
        load_tensors(tmp_path / "none.safetensors", "test 1")


def test_another_schema_is_refused(path):
    with pytest.raises(StorageError, match="holds 'test 1', but 'test 2' is needed"):
        load_tensors(path, "test 2")


def test_a_changed_number_is_found(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(StorageError, match="checksum mismatch"):
        load_tensors(path, "test 1")


def test_a_changed_setting_is_found(path):
    content = path.read_bytes()
    assert content.count(b"[1, 2]") == 1
    path.write_bytes(content.replace(b"[1, 2]", b"[1, 3]"))
    with pytest.raises(StorageError, match="checksum mismatch"):
        load_tensors(path, "test 1")


def test_tensors_that_share_memory_are_stored_each(tmp_path):
    whole = torch.arange(4.0)
    save_tensors(tmp_path / "shared", "test 1", {"all": whole, "again": whole, "half": whole[2:]}, {})
    tensors, _ = load_tensors(tmp_path / "shared", "test 1")
    assert {name: tensor.tolist() for name, tensor in tensors.items()} == {
        "all": [0, 1, 2, 3], "again": [0, 1, 2, 3], "half": [2, 3]
    }  # fmt: skip


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_a_torn_file_is_refused(path, keep):
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(StorageError, match="is damaged"):
        load_tensors(path, "test 1")


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_bytes(path, b"old")

    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(StorageError, match="cannot write .*No space left"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        write_bytes(tmp_path / "file" / "below", b"")


def test_json(tmp_path):
    write_json(tmp_path / "x.json", {"b": 1, "a": [None, 0.5]})
    assert (tmp_path / "x.json").read_text() == json.dumps({"a": [None, 0.5], "b": 1}, indent=2) + "\n"
    assert read_json(tmp_path / "x.json") == {"a": [None, 0.5], "b": 1}
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(StorageError, match="is damaged"):
        read_json(tmp_path / "x.json")
    with pytest.raises(StorageError, match="is missing"):
        read_json(tmp_path / "y.json")
