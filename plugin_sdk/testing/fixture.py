"""The pytest fixture `mesh`. Import it from plugin_sdk.testing, in conftest.py."""

from collections.abc import Iterator

import pytest

from plugin_sdk.testing.mesh import Mesh


@pytest.fixture(name="mesh")
def mesh_fixture() -> Iterator[Mesh]:
    """A mesh in memory: use it in a coroutine test, or give a coroutine to `mesh.run`."""
    mesh = Mesh()
    yield mesh
    mesh.abandon()
