"""A mesh in memory, for unit tests of plugins: the real router, no sockets, no processes, and a clock to move.

async with mesh() as m:
    bus = await m.client()
    await m.start(plugin, config={"greeting": "Hi"})
    assert await bus.call("hello.greet", "Ada") == "Hi, Ada!"
    await bus.publish("user.login", {"user_id": "1"})
    assert (await m.published.wait("user.welcome")).data == {"user_id": "1"}

The fixture `mesh` gives one to a pytest test: put `from plugin_sdk.testing import mesh_fixture` into conftest.py.
"""

from typing import TYPE_CHECKING, Any

from plugin_sdk.testing.broker import MemoryBroker, MemoryLink, RouterMissing
from plugin_sdk.testing.mesh import Mesh, Recorder, mesh

if TYPE_CHECKING:
    from plugin_sdk.testing.fixture import mesh_fixture

__all__ = ["MemoryBroker", "MemoryLink", "Mesh", "Recorder", "RouterMissing", "mesh", "mesh_fixture"]


def __getattr__(name: str) -> Any:
    # pytest is imported for those who ask for the fixture, and for nobody else.
    if name == "mesh_fixture":
        from plugin_sdk.testing.fixture import mesh_fixture

        return mesh_fixture
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
