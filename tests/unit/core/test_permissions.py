"""What was not granted is refused with the permission that is missing, noticed, and reaches nobody (SEC-1)."""

from __future__ import annotations

import pytest

from broker.core.grants import UNRESTRICTED, Permissions
from broker.core.notices import PeerMisbehaved
from plugin_sdk.wire import packets as p
from tests.core_driver import Mesh, Peer, payload

NARROW = Permissions(publish=("user.welcome", "log.>"), subscribe=("user.*",), call=("users.get",))


@pytest.fixture
def hello(mesh: Mesh) -> Peer:
    mesh.router.admission.set_grants(lambda name: NARROW if name == "hello" else UNRESTRICTED)
    return mesh.plugin("hello")


@pytest.fixture
def mesh() -> Mesh:
    return Mesh()


def refusal(peer: Peer, packet: object) -> p.Error:
    peer.take()
    peer.send(packet)
    return peer.only(p.Error)


def test_a_peer_is_told_what_it_was_granted(mesh: Mesh) -> None:
    mesh.router.admission.set_grants(lambda name: NARROW)
    answer = mesh.connect().ask(name="hello")
    assert answer.permissions == {"publish": ["user.welcome", "log.>"], "subscribe": ["user.*"], "call": ["users.get"]}


def test_an_unrestricted_peer_is_told_nothing(mesh: Mesh) -> None:
    assert mesh.connect().ask(name="hello").permissions == {}


def test_what_was_granted_works(mesh: Mesh, hello: Peer) -> None:
    other = mesh.plugin("users")
    other.serve("users.get")
    other.subscribe("user.>")
    other.subscribe("log.>")
    hello.subscribe("user.*")
    hello.subscribe("user.login")
    hello.publish("user.welcome")
    hello.publish("log.hello")
    hello.call("users.get")
    assert [type(packet) for packet in other.take()] == [p.Event, p.Event, p.Request]


def test_an_event_that_was_not_granted_reaches_nobody_and_is_noticed(mesh: Mesh, hello: Peer) -> None:
    reader = mesh.client()
    reader.subscribe("user.>")
    error = refusal(hello, p.Publish(0, "user.deleted", payload(b"x")))
    assert (error.ref, error.code) == (0, "denied")
    assert error.text.startswith("plugin 'hello' lacks the permission 'event_bus: publish user.deleted'")
    assert reader.events() == []
    (notice,) = mesh.notices(PeerMisbehaved)
    assert (notice.name, notice.code) == ("hello", "denied")


def test_a_burst_that_was_not_granted_is_refused_event_by_event(mesh: Mesh, hello: Peer) -> None:
    reader = mesh.client()
    reader.subscribe(">")
    for warm_up in ("user.deleted", "user.welcome"):
        mesh.client("free").publish(warm_up)
    reader.take()
    denied = [p.Publish(0, "user.deleted", payload(b"x"))] * 10
    granted = [p.Publish(0, "user.welcome", payload(b"y"))] * 10
    hello.take()
    hello.send(*denied, *granted)
    assert [error.code for error in hello.all_of(p.Error)] == ["denied"] * 10
    assert reader.bodies() == [b"y"] * 10


def test_a_call_that_was_not_granted_ends_with_denied(mesh: Mesh, hello: Peer) -> None:
    other = mesh.plugin("users")
    other.serve("users.delete")
    error = refusal(hello, p.Call(7, "users.delete", payload(), 1000))
    assert (error.ref, error.code) == (7, "denied")
    assert "'services: call users.delete'" in error.text
    assert other.requests() == []


@pytest.mark.parametrize("pattern", [">", "user.>", "*.login", "order.new"])
def test_a_subscription_needs_one_pattern_that_covers_all_of_it(hello: Peer, pattern: str) -> None:
    error = refusal(hello, p.Subscribe(9, pattern))
    assert (error.ref, error.code) == (9, "denied")
    assert f"'event_bus: subscribe {pattern}'" in error.text


def test_services_of_its_own_name_are_free_unless_offers_are_narrowed(mesh: Mesh, hello: Peer) -> None:
    hello.serve("hello.greet")
    mesh.router.admission.set_grants(lambda name: Permissions(offer=("shop.buy",)))
    shop = mesh.plugin("shop")
    shop.serve("shop.buy")
    assert "'services: offer shop.sell'" in refusal(shop, p.Serve(9, "shop.sell")).text


def test_no_grant_opens_what_is_reserved(mesh: Mesh) -> None:
    everything = Permissions(publish=("$broker.>",), subscribe=("$broker.>",), call=("$broker.>",))
    mesh.router.admission.set_keys({"key": "hello"})
    mesh.router.admission.set_grants(lambda name: everything)
    hello = mesh.connect().register(name="hello", token="key")
    for packet in (
        p.Publish(0, "$broker.x", payload()),
        p.Subscribe(1, "$broker.>"),
        p.Call(2, "$broker.stop", payload(), 1000),
    ):
        assert refusal(hello, packet).code == "denied"


def test_a_grant_of_everything_leaves_out_what_is_reserved(mesh: Mesh) -> None:
    mesh.router.admission.set_keys({"key": "hello"})
    mesh.router.admission.set_grants(lambda name: Permissions(subscribe=(">",), publish=(">",)))
    hello = mesh.connect().register(name="hello", token="key")
    hello.subscribe(">")
    assert refusal(hello, p.Publish(0, "$broker.x", payload())).code == "denied"


def test_a_managed_plugin_has_what_its_start_said(mesh: Mesh) -> None:
    mesh.router.admission.set_grants(lambda name: UNRESTRICTED)
    mesh.router.admission.expect("secret", "hello", 77, NARROW)
    hello = mesh.connect(pid=77).register(name="hello", token="secret")
    assert refusal(hello, p.Publish(0, "order.new", payload())).code == "denied"


def test_the_operator_as_a_client_may_do_everything(mesh: Mesh) -> None:
    mesh.router.admission.set_grants(lambda name: Permissions(publish=(), subscribe=(), call=()))
    client = mesh.client()
    client.subscribe(">")
    client.publish("a.b")
    assert len(client.events()) == 1


def test_an_illegal_subject_is_called_illegal_not_denied(hello: Peer) -> None:
    assert refusal(hello, p.Publish(0, "user..welcome", payload())).code == "bad_subject"


def test_verdicts_are_remembered_within_a_bound(hello: Peer) -> None:
    for number in range(25_000):
        hello.publish(f"log.n{number}")
    assert hello.session.may_publish is not None
    assert len(hello.session.may_publish) <= 10_000


def test_what_plugins_print_is_read_by_who_was_granted_it_by_name_and_by_the_operator(mesh: Mesh) -> None:
    def managed(name: str, permissions: Permissions) -> Peer:
        pid = 7000 + len(mesh.peers)
        mesh.router.admission.expect(f"token of {name}", name, pid, permissions)
        return mesh.connect(pid=pid, group=pid).register(name=name, token=f"token of {name}")

    logger = managed("logger", Permissions(subscribe=("$log.>",)))
    logger.subscribe("$log.hello")
    assert refusal(logger, p.Subscribe(90, "$broker.>", None, {})).code == "denied"
    for peer in (managed("nosy", Permissions(subscribe=(">", "log.>"))), managed("free", UNRESTRICTED)):
        assert refusal(peer, p.Subscribe(90, "$log.>", None, {})).code == "denied"
    mesh.client("operator").subscribe("$log.>")
    assert mesh.router.listeners("$log.hello") == {"logger", "operator"}
    assert mesh.router.listeners("$log.other") == {"operator"}
