"""Standby and switch: a second process of a plugin waits unseen, and takes over in one step."""

from typing import Any

import pytest

from broker.core.notices import SessionLost
from plugin_sdk.wire import packets as p
from tests.core_driver import Mesh, Peer, body, payload


@pytest.fixture
def mesh() -> Mesh:
    return Mesh()


def old_version(mesh: Mesh) -> Peer:
    """The process that serves and listens so far."""
    mesh.router.admission.expect("one", "shop", 7001)
    return at_work(connect(mesh, "one", 7001))


def new_version(mesh: Mesh) -> Peer:
    """A process of the same plugin that stands by."""
    mesh.router.admission.expect("two", "shop", 7002, routed=False)
    return at_work(connect(mesh, "two", 7002))


def connect(mesh: Mesh, token: str, pid: int) -> Peer:
    """A connection of one process; its nonce is the same over all of them."""
    return mesh.connect(pid=pid, group=pid).register(name="shop", token=token, nonce=token)


def at_work(peer: Peer, **options: Any) -> Peer:
    peer.serve("shop.sell")
    peer.subscribe("order.*", **options)
    return peer


def switch(mesh: Mesh, new: Peer | None, old: Peer | None) -> None:
    mesh.router.switch(new.number if new else None, old.number if old else None, mesh.now)
    mesh.deliver()


def test_a_standby_is_acknowledged_but_gets_nothing(mesh: Mesh) -> None:
    old, new, client = old_version(mesh), new_version(mesh), mesh.client()
    for number in range(3):
        client.publish("order.new", b"%d" % number)
        client.call("shop.sell")
    assert len(old.take()) == 6
    assert new.take() == []


def test_the_switch_moves_all_at_once_and_nothing_is_lost_or_doubled(mesh: Mesh) -> None:
    old, new, client = old_version(mesh), new_version(mesh), mesh.client()
    client.publish("order.new", b"before")
    ref = client.call("shop.sell")
    running = old.requests()[0]
    switch(mesh, new, old)
    client.publish("order.new", b"after")
    client.call("shop.sell")
    assert len(new.inbox) == 2
    assert [type(packet) for packet in new.take()] == [p.Event, p.Request]
    assert old.take() == []
    old.reply(running, b"done by the old one")
    assert client.only(p.Reply) == p.Reply(ref, payload(b"done by the old one"))


def test_one_that_stands_back_gets_no_more_events_though_nobody_listens_in_its_place(mesh: Mesh) -> None:
    old, client = old_version(mesh), mesh.client()
    client.publish("order.new", b"before")
    switch(mesh, None, old)
    client.publish("order.new", b"after")
    assert [body(event) for event in old.take()] == [b"before"]


def test_the_old_one_may_withdraw_what_it_served_and_leave(mesh: Mesh) -> None:
    old, new, client = old_version(mesh), new_version(mesh), mesh.client()
    switch(mesh, new, old)
    old.withdraw("shop.sell")
    old.unsubscribe(2)
    old.leave()
    client.call("shop.sell")
    assert len(new.requests()) == 1
    assert mesh.router.plugin_session("shop") == new.number


def test_requests_that_wait_for_room_go_to_the_new_one(mesh: Mesh) -> None:
    old, client = mesh.managed("shop", "one", 7001), mesh.client()
    old.serve("shop.sell", concurrency=1)
    new = new_version(mesh)
    client.call("shop.sell", b"runs")
    client.call("shop.sell", b"waits")
    switch(mesh, new, old)
    assert [body(request) for request in new.requests()] == [b"waits"]


def test_a_service_that_the_new_one_does_not_have_ends_with_the_switch(mesh: Mesh) -> None:
    old, new, client = old_version(mesh), new_version(mesh), mesh.client()
    old.serve("shop.refund")
    switch(mesh, new, old)
    ref = client.call("shop.refund")
    error = client.only(p.Error)
    assert (error.ref, error.code) == (ref, "unavailable")


def test_a_standby_gets_the_last_values_when_it_takes_over(mesh: Mesh) -> None:
    old, client = old_version(mesh), mesh.client()
    mesh.router.admission.expect("two", "shop", 7002, routed=False)
    new = connect(mesh, "two", 7002)
    new.subscribe("price.*", last=True)
    client.publish("price.tea", b"3", retain=True)
    assert new.take() == []
    switch(mesh, new, old)
    assert new.bodies() == [b"3"]


def test_a_standby_that_ends_leaves_the_old_one_as_it_was(mesh: Mesh) -> None:
    old, new, client = old_version(mesh), new_version(mesh), mesh.client()
    new.leave()
    assert [lost.session for lost in mesh.notices(SessionLost)] == [new.number]
    client.publish("order.new", b"still here")
    client.call("shop.sell")
    assert len(old.take()) == 2
    assert mesh.router.plugin_session("shop") == old.number


def test_only_one_process_may_stand_by(mesh: Mesh) -> None:
    old_version(mesh)
    new_version(mesh)
    mesh.router.admission.expect("three", "shop", 7003, routed=False)
    refused = mesh.connect(pid=7003, group=7003).ask(name="shop", token="three")
    assert refused.code == "duplicate_name"


def test_a_standby_whose_connection_is_made_anew_still_stands_by(mesh: Mesh) -> None:
    old, _, client = old_version(mesh), new_version(mesh), mesh.client()
    again = at_work(connect(mesh, "two", 7002))
    client.call("shop.sell")
    assert (len(old.requests()), again.take()) == (1, [])
    switch(mesh, again, old)
    client.call("shop.sell")
    assert len(again.requests()) == 1


def test_after_the_switch_the_new_one_is_routed_when_it_comes_again_and_the_old_one_is_not(mesh: Mesh) -> None:
    old, new, client = old_version(mesh), new_version(mesh), mesh.client()
    switch(mesh, new, old)
    old_again, new_again = at_work(connect(mesh, "one", 7001)), at_work(connect(mesh, "two", 7002))
    client.call("shop.sell")
    client.publish("order.new", b"x")
    assert old_again.take() == []
    assert len(new_again.take()) == 2


def test_one_that_is_taken_out_keeps_its_name_and_comes_back(mesh: Mesh) -> None:
    only, client = old_version(mesh), mesh.client()
    switch(mesh, None, only)
    client.call("shop.sell")
    assert client.only(p.Error).code == "unavailable"
    assert mesh.router.plugin_session("shop") == only.number
    switch(mesh, only, None)
    client.call("shop.sell")
    client.publish("order.new", b"x")
    assert len(only.take()) == 2


def test_events_that_wait_for_the_old_one_still_reach_it(mesh: Mesh) -> None:
    old = mesh.managed("shop", "one", 7001)
    old.subscribe("order.*")
    client = mesh.client()
    client.publish("order.new", b"x" * mesh.router.limits.event_credit)
    client.publish("order.new", b"waits")
    first = old.all_of(p.Event)
    assert len(first) == 1
    switch(mesh, new_version(mesh), old)
    old.grant(2 * mesh.router.limits.event_credit)
    assert old.bodies() == [b"waits"]
