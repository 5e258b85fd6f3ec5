"""What `$broker.status` says of a plugin that has more than one process."""

from tests.core_driver import Mesh, Peer
from tests.unit.telemetry.document import status, view


def process(mesh: Mesh, token: str, pid: int, *, routed: bool = True) -> Peer:
    """A process of the plugin `shop` that the broker has started, a second later than anything before."""
    mesh.now += 1.0
    mesh.router.admission.expect(token, "shop", pid, routed=routed, version=f"{pid}.0")
    return mesh.connect(pid=pid, group=pid).register(name="shop", token=token, nonce=token)


def states(mesh: Mesh, own: Peer) -> list[tuple[str, str]]:
    """Version and state of each row, when `own` is what the supervisor has as the plugin's session."""
    mesh.now += 1.0
    document = status(mesh, view("shop", session=own.number, version=own.session.version))
    return sorted((row["version"], row["state"]) for row in document["plugins"])


def test_in_an_upgrade_the_new_version_stands_by_before_the_switch_and_the_old_one_leaves_after_it() -> None:
    mesh = Mesh()
    old, new = process(mesh, "one", 1), process(mesh, "two", 2, routed=False)
    assert states(mesh, old) == [("1.0", "running"), ("2.0", "standby")]
    mesh.router.switch(new.number, old.number, mesh.now)
    assert states(mesh, new) == [("1.0", "leaving"), ("2.0", "running")]


def test_further_processes_of_a_plugin_that_was_drained_are_drained_too() -> None:
    mesh = Mesh()
    first = mesh.plugin("shop")
    second = mesh.connect().register(name="shop", instance="b")
    for each in (first, second):
        mesh.router.switch(None, each.number, mesh.now)
    document = status(mesh, view("shop", session=first.number))
    assert {row["instance"]: row["state"] for row in document["plugins"]} == {"": "running", "b": "drained"}
