"""Artefacts on disk: safetensors with a checked header, text and JSON, all written atomically."""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from metalib.errors import MetalibError

_HEADER_KEY = "metalib"  # one key only: safetensors writes several in no fixed order


class StorageError(MetalibError):
    """A file is missing, damaged, of another kind than asked for, or cannot be written."""


def save_tensors(path: Path, schema: str, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write named tensors and a JSON header to ``path``, atomically; same content, same bytes.

    Args:
        path: the file, ending in ``.safetensors`` by custom.
        schema: what kind of file this is, e.g. ``"sinusoid tasks 1"``; readers ask for it by name.
        tensors: by name; any device, stored from the CPU.
        header: plain data (settings, seeds, axes); must be JSON.

    Raises:
        StorageError: the folder cannot be written.
    """
    # Clones, since a file holds no two tensors that share memory.
    stored = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in sorted(tensors.items())}
    content = {"schema": schema, "header": dict(header)}
    text = json.dumps({**content, "sha256": _checksum(content, stored)}, sort_keys=True, allow_nan=False)
    write_bytes(path, safetensors.torch.save(stored, metadata={_HEADER_KEY: text}))


def load_tensors(path: Path, schema: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors by name and the header that :func:`save_tensors` wrote.

    Raises:
        StorageError: the file is missing, is not of this ``schema``, or its checksum does not match.
    """
    if not path.is_file():
        raise StorageError(f"{path} is missing; run the stage that writes it (`dvc repro`) or check the path")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        content = json.loads(metadata.get(_HEADER_KEY, "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise StorageError(f"{path} is damaged ({error}); delete it and run `dvc repro`") from error
    if content.get("schema") != schema:
        raise StorageError(
            f"{path} holds {content.get('schema', 'no known schema')!r}, but {schema!r} is needed; "
            "it was written by another version or is another file: delete it and run `dvc repro`"
        )
    if content.pop("sha256", None) != _checksum(content, tensors):
        raise StorageError(f"{path} is damaged (checksum mismatch); delete it and run `dvc repro`")
    header: dict[str, Any] = content["header"]
    return tensors, header


def _checksum(content: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(_json_checksum(content).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that readers see the old content or the new, never a part.

    Raises:
        StorageError: the folder cannot be made or written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).chmod(0o644)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise StorageError(f"cannot write {path} ({error.strerror}); check the folder and its rights") from error


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically; see :func:`write_bytes`."""
    write_bytes(path, text.encode())


def write_json(path: Path, data: Any) -> None:
    """Write plain data as indented JSON with sorted keys, atomically; see :func:`write_bytes`."""
    write_text(path, json.dumps(data, indent=2, sort_keys=True, allow_nan=False) + "\n")


def write_checked_json(path: Path, schema: str, data: Any) -> None:
    """Write plain data as JSON with its schema and checksum, atomically; see :func:`write_bytes`."""
    write_json(path, {"schema": schema, "sha256": _json_checksum(data), "data": data})


def read_checked_json(path: Path, schema: str) -> Any:
    """Return the data that :func:`write_checked_json` wrote.

    Raises:
        StorageError: the file is missing, is not of this ``schema``, or its checksum does not match.
    """
    content = read_json(path)
    if not isinstance(content, dict) or content.get("schema") != schema:
        raise StorageError(f"{path} does not hold {schema!r}; delete it and run `dvc repro`")
    if content.get("sha256") != _json_checksum(content.get("data")):
        raise StorageError(f"{path} is damaged (checksum mismatch); delete it and run `dvc repro`")
    return content["data"]


def _json_checksum(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True, allow_nan=False).encode()).hexdigest()


def read_json(path: Path) -> Any:
    """Return the data of a JSON file.

    Raises:
        StorageError: the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise StorageError(f"{path} is missing; run the stage that writes it (`dvc repro`)") from error
    except OSError as error:
        raise StorageError(f"{path} cannot be read ({error.strerror}); check its rights") from error
    except ValueError as error:
        raise StorageError(f"{path} is damaged ({error}); delete it and run `dvc repro`") from error
