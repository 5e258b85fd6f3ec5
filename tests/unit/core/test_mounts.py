"""A plugin that the broker mounts on another one serves under that one's name, and nobody else does (PLG-9)."""

import pytest

from broker.core.grants import Permissions
from plugin_sdk.wire import packets as p
from tests.core_driver import Mesh, Peer


@pytest.fixture
def mesh() -> Mesh:
    return Mesh()


def mounted(mesh: Mesh, mount: str, permissions: Permissions | None = None, pid: int = 5000) -> Peer:
    """A plugin that the broker started for this place."""
    name = mount.rpartition(".")[2]
    mesh.router.admission.expect(f"token of {mount}", name, pid, permissions or Permissions(), mount=mount)
    return mesh.connect(pid=pid, group=pid).register(name=name, token=f"token of {mount}")


def refusal(peer: Peer, packet: object) -> p.Error:
    peer.take()
    peer.send(packet)
    return peer.only(p.Error)


def test_a_sub_plugin_serves_under_its_parent_and_keeps_its_own_name(mesh: Mesh) -> None:
    audit = mounted(mesh, "users.audit")
    audit.serve("users.audit.trail")
    client = mesh.client()
    client.call("users.audit.trail")
    assert audit.only(p.Request).service == "users.audit.trail"
    assert {each.name for each in mesh.router.snapshot(mesh.now).sessions} == {"audit", "client"}


@pytest.mark.parametrize("service", ["audit.trail", "users.trail", "users.auditing.trail", "users.audit"])
def test_it_serves_nowhere_else(mesh: Mesh, service: str) -> None:
    error = refusal(mounted(mesh, "users.audit"), p.Serve(1, service))
    assert error.code == "denied"
    assert "such as users.audit." in error.text


def test_what_it_may_offer_is_said_by_full_names(mesh: Mesh) -> None:
    audit = mounted(mesh, "users.audit", Permissions(offer=("users.audit.trail",)))
    audit.serve("users.audit.trail")
    assert "services: offer users.audit.purge" in refusal(audit, p.Serve(2, "users.audit.purge")).text


def test_of_parent_and_sub_plugin_only_the_first_has_a_name(mesh: Mesh) -> None:
    users = mesh.managed("users", "token", 4000)
    users.serve("users.audit.trail")
    audit = mounted(mesh, "users.audit")
    error = refusal(audit, p.Serve(1, "users.audit.trail"))
    assert (error.code, error.text.partition(":")[0]) == (
        "denied",
        "service 'users.audit.trail' is served by plugin 'users' already",
    )
    audit.serve("users.audit.other")
    assert "by plugin 'audit' already" in refusal(users, p.Serve(2, "users.audit.other")).text


def test_a_plugin_that_was_started_by_hand_has_no_parent(mesh: Mesh) -> None:
    assert refusal(mesh.plugin("audit"), p.Serve(1, "users.audit.trail")).code == "denied"


def test_after_a_lost_link_it_is_mounted_as_before(mesh: Mesh) -> None:
    first = mounted(mesh, "users.audit")
    mesh.router.peer_lost(first.address, mesh.now, "test")
    again = mesh.connect(pid=5000, group=5000).register(name="audit", token="token of users.audit")
    again.serve("users.audit.trail")
