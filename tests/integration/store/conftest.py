"""Every test that asks for `url`, `empty_url` or `open_store` runs on SQLite and on MariaDB."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from broker.store import Store
from broker.store.migrate import upgrade
from tests.integration.store.support import BOUND_SECS
from tests.mariadb import mariadb, mariadb_url
from tests.mariadb_server import Server

__all__ = ["Server", "mariadb", "mariadb_url"]

OpenStore = Callable[..., Store]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "mariadb" in getattr(item, "fixturenames", ()):
            item.add_marker("mariadb")


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/broker.db"


@pytest.fixture(params=["sqlite", pytest.param("mariadb", marks=pytest.mark.mariadb)])
def empty_url(request: pytest.FixtureRequest) -> str:
    """The URL of a database without tables."""
    address: str = request.getfixturevalue(f"{request.param}_url")
    return address


@pytest.fixture
def url(empty_url: str) -> str:
    """The URL of a database at the newest revision, which spares most tests a child process."""
    upgrade(empty_url)
    return empty_url


@pytest.fixture
def server_url(mariadb_url: str) -> str:
    """As `url`, for tests of what happens to a server."""
    upgrade(mariadb_url)
    return mariadb_url


@pytest.fixture
def stores() -> Iterator[OpenStore]:
    """Start a store for a URL; all of them are closed at the end."""
    opened: list[Store] = []

    def start(url: str, **options: Any) -> Store:
        settings: dict[str, Any] = {"node": "here", "retry_secs": 0.05} | options
        store = Store(url, **settings)
        opened.append(store)
        store.start()
        return store

    yield start
    for store in opened:
        store.close(timeout=BOUND_SECS if store.state().status == "up" else 0)


@pytest.fixture
def open_store(stores: OpenStore, url: str) -> OpenStore:
    """Start a store on the database of the test."""

    def start(**options: Any) -> Store:
        return stores(url, **options)

    return start


@pytest.fixture
def store(open_store: OpenStore) -> Store:
    return open_store()
