"""Fixtures for whole brokers."""

import importlib.util
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


@pytest.fixture
def mesh() -> Iterator[Mesh]:
    """A broker that is not started yet."""
    with _mesh() as made:
        yield made


@pytest.fixture
def other() -> Iterator[Mesh]:
    """One more, to compare the first one with."""
    with _mesh() as made:
        yield made


@contextmanager
def _mesh() -> Iterator[Mesh]:
    # A short path, as sockets need.
    with tempfile.TemporaryDirectory(prefix="pm-", ignore_cleanup_errors=True) as folder:
        home = Path(folder) / "home"
        home.mkdir(mode=0o700)
        made = Mesh(home)
        try:
            yield made
        finally:
            made.close()


@pytest.fixture(scope="session", autouse=True)
def _migrated(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Most tests are not about the first start, and to migrate a database takes longer than all else in it."""
    home = tmp_path_factory.mktemp("migrated")
    made = Mesh(home).cli("db", "upgrade")
    assert made.returncode == 0, made.stderr
    Mesh.database = home / "broker.db"
