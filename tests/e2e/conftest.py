"""Fixtures for whole brokers."""

import importlib.util
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.mesh import Mesh
from tests.mariadb import mariadb, mariadb_url
from tests.promtool import promtool

__all__ = ["mariadb", "mariadb_url", "promtool"]

assert importlib.util.find_spec("broker"), "run the tests from the top of the tree"


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database of the newest schema, to be copied: to make one takes longer than all else in a start."""
    home = tmp_path_factory.mktemp("migrated")
    made = Mesh(home).cli("db", "upgrade")
    assert made.returncode == 0, made.stderr
    return home / "broker.db"


@pytest.fixture
def new_mesh() -> Iterator[Mesh]:
    """A broker that was never started."""
    with _mesh() as made:
        yield made


@pytest.fixture
def mesh(migrated: Path) -> Iterator[Mesh]:
    """A broker that is not started yet, but has been before."""
    with _mesh(migrated) as made:
        yield made


@pytest.fixture
def other(migrated: Path) -> Iterator[Mesh]:
    """One more, to compare the first one with."""
    with _mesh(migrated) as made:
        yield made


@contextmanager
def _mesh(database: Path | None = None) -> Iterator[Mesh]:
    # A short path, as sockets need.
    with tempfile.TemporaryDirectory(prefix="pm-", ignore_cleanup_errors=True) as folder:
        home = Path(folder) / "home"
        home.mkdir(mode=0o700)
        if database is not None:
            shutil.copy(database, home)
        made = Mesh(home)
        try:
            yield made
        finally:
            made.close()
