"""Tests of the shipped services keep their data in a directory of their own."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "data"
    monkeypatch.setenv("BROKER_DATA_DIR", str(path))
    return path
