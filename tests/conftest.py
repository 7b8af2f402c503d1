"""Fixtures of all tests."""

import shutil
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def project_files(tmp_path, monkeypatch):
    """A folder with the project's settings files, as working directory: stages run there write nothing here."""
    for name in ("params.yaml", "machine.yaml"):
        shutil.copy(ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path
