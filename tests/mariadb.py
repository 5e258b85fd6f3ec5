"""Fixtures around a private MariaDB server.

Import the fixture `mariadb` (the server) or `mariadb_url` (a fresh database on it) into a conftest; however many do,
one server runs per session. Without the binary the test is skipped, which `tests/conftest.py` turns into a failure
in CI.
"""

from collections.abc import Iterator
from itertools import count

import pytest

from tests.mariadb_server import NoServer, Server

_databases = count(1)
_server = pytest.StashKey[Server]()


@pytest.fixture(scope="session")
def mariadb(request: pytest.FixtureRequest) -> Server:
    """The server of this session, with a user that may do everything in databases called mesh_…"""
    stash = request.config.stash
    if _server not in stash:
        try:
            server = Server()
        except NoServer as error:
            pytest.skip(str(error))
        request.config.add_cleanup(server.remove)
        server.start()
        server.create_user()
        stash[_server] = server
    return stash[_server]


@pytest.fixture
def mariadb_url(mariadb: Server) -> Iterator[str]:
    """The URL of an empty database that exists for one test."""
    mariadb.ensure()
    name = f"mesh_{next(_databases)}"
    mariadb.run(f"CREATE DATABASE {name}")
    yield mariadb.url(name)
    mariadb.ensure()
    mariadb.run(f"DROP DATABASE {name}")
