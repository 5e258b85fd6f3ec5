"""Events: who gets them, in which order, and which subjects are the broker's own."""

from collections import Counter

import pytest

from broker.core.notices import PeerMisbehaved
from plugin_sdk.wire import packets as p
from plugin_sdk.wire.codec import encode_frame
from plugin_sdk.wire.limits import Limits
from tests.core_driver import Mesh, Peer, payload


@pytest.fixture
def mesh() -> Mesh:
    return Mesh()


def refusal(peer: Peer, *packets: p.Packet) -> p.Error:
    peer.send(*packets)
    return peer.only(p.Error)


def test_a_subscription_is_acknowledged_before_its_first_event(mesh: Mesh) -> None:
    peer = mesh.client()
    peer.send(p.Subscribe(3, "a.*"), p.Publish(0, "a.b", payload(b"own")))
    ok, event = peer.take()
    assert ok == p.Ok(3)
    assert (event.subscriptions, event.subject) == ([3], "a.b")


def test_headers_and_body_arrive_as_they_were_sent(mesh: Mesh) -> None:
    peer = mesh.client()
    peer.subscribe("a")
    sent = payload(bytes(range(256)) * 200, {"traceparent": "00-ab-cd-01", "x": "ü"})
    peer.send(p.Publish(0, "a", sent))
    assert bytes(peer.only(p.Event).payload) == bytes(sent)


def test_an_event_goes_to_everybody_who_subscribed_and_to_nobody_else(mesh: Mesh) -> None:
    publisher = mesh.client()
    readers = {pattern: mesh.client() for pattern in ("user.login", "user.*", "user.>", ">", "*", "user.logout", "use")}
    for pattern, reader in readers.items():
        reader.subscribe(pattern)
    publisher.publish("user.login", b"x")
    got = {pattern for pattern, reader in readers.items() if reader.bodies() == [b"x"]}
    assert got == {"user.login", "user.*", "user.>", ">"}


def test_a_publisher_gets_its_own_events_when_it_subscribed(mesh: Mesh) -> None:
    peer = mesh.client()
    peer.subscribe("a")
    peer.publish("a", b"mine")
    assert peer.bodies() == [b"mine"]


def test_an_event_that_several_subscriptions_of_a_peer_cover_is_sent_once_and_names_them_all(mesh: Mesh) -> None:
    reader = mesh.client()
    ids = [reader.subscribe(pattern) for pattern in ("a.b", "a.*", ">")]
    mesh.client().publish("a.b")
    ((subscriptions, _, _),) = reader.events()
    assert sorted(subscriptions) == ids


@pytest.mark.parametrize("together", [True, False])
def test_a_frame_stays_small_however_many_subscriptions_of_a_peer_cover_a_subject(mesh: Mesh, together: bool) -> None:
    reader, publisher = mesh.client(), mesh.client()
    ids = [2**62 + number for number in range(4000)]
    for each in ids:
        reader.send(p.Subscribe(each, "a"))
    reader.take()
    event = p.Publish(0, "a", payload())
    for frame in [[event] * 100] if together else [[event]] * 100:
        mesh.router.receive(publisher.address, encode_frame(publisher.number, frame), mesh.now)
    outbox, sizes, frames = reader.session.outbox, [], []
    while (taken := outbox.take()) is not None:
        sizes.append(len(taken))
        frames.append(taken)
    for taken in frames:
        reader.hear(taken)
    assert max(sizes) < 500_000
    got = Counter(each for subscriptions, _, _ in reader.events() for each in subscriptions)
    assert got == dict.fromkeys(ids, 100)


def test_a_subscription_that_has_ended_gets_nothing_more(mesh: Mesh) -> None:
    reader, publisher = mesh.client(), mesh.client()
    ended, kept = reader.subscribe("a.b"), reader.subscribe("a.*")
    publisher.publish("a.b", b"1")
    reader.take()
    reader.unsubscribe(ended)
    publisher.publish("a.b", b"2")
    assert reader.events() == [([kept], "a.b", b"2")]


def test_a_new_subscription_gets_the_next_event_of_a_subject_that_was_routed_before(mesh: Mesh) -> None:
    early, late, publisher = mesh.client(), mesh.client(), mesh.client()
    early.subscribe("a")
    publisher.publish("a", b"1")
    late.subscribe("a")
    publisher.publish("a", b"2")
    assert early.bodies() == [b"1", b"2"]
    assert late.bodies() == [b"2"]


def test_order_is_kept_per_publisher_through_mixed_frames(mesh: Mesh) -> None:
    reader, publishers = mesh.client(), [mesh.client(), mesh.client()]
    reader.subscribe("n.>")
    for start in range(0, 60, 6):
        for name, publisher in zip("ab", publishers, strict=True):
            frame = [
                p.Publish(0, f"n.{number % 4}", payload(b"%s%d" % (name.encode(), number)))
                for number in range(start, start + 6)
            ]
            publisher.send(*frame)
    bodies = reader.bodies()
    for name in "ab":
        assert [int(each[1:]) for each in bodies if each.startswith(name.encode())] == list(range(60))


def test_the_session_of_a_reader_that_left_gets_nothing_and_the_others_still_do(mesh: Mesh) -> None:
    gone, stays, publisher = mesh.client(), mesh.client(), mesh.client()
    gone.subscribe("a")
    stays.subscribe("a")
    publisher.publish("a", b"1")
    gone.vanish()
    publisher.publish("a", b"2")
    assert gone.bodies() == [b"1"]
    assert stays.bodies() == [b"1", b"2"]


@pytest.mark.parametrize("subject", ["", ".", "a.", "a b", "a.*", "a.>", ">", "ä", "a" * 256 + "b", ".".join("a" * 17)])
def test_publishing_to_a_bad_subject_is_refused_and_costs_no_credit(mesh: Mesh, subject: str) -> None:
    peer = mesh.client()
    if len(subject) <= 256:
        assert refusal(peer, p.Publish(0, subject, payload(b"x" * 1000))).code == "bad_subject"
    else:
        assert refusal(peer, p.Publish(0, subject, payload())).code == "bad_frame"
    outbox = peer.session.outbox
    assert outbox.allowance + outbox.consumed == mesh.router.limits.publish_credit


def test_a_publisher_of_bad_subjects_never_runs_out_of_credit(mesh: Mesh) -> None:
    peer = mesh.client()
    for _ in range(20):
        peer.send(p.Publish(0, "a b", payload(b"x" * 100_000)))
    granted = sum(packet.amount for packet in peer.all_of(p.Credit))
    assert granted > 1_000_000


@pytest.mark.parametrize("pattern", ["", "a.", "a.>.b", "a*", "a b", ">.a"])
def test_subscribing_to_a_bad_pattern_is_refused(mesh: Mesh, pattern: str) -> None:
    error = refusal(mesh.client(), p.Subscribe(5, pattern))
    assert (error.ref, error.code) == (5, "bad_subject")


@pytest.mark.parametrize("group", ["", "two words", "a.b", "*"])
def test_a_bad_group_name_is_refused(mesh: Mesh, group: str) -> None:
    error = refusal(mesh.client(), p.Subscribe(5, "a", group))
    assert (error.ref, error.code) == (5, "bad_name")


@pytest.mark.parametrize(
    "options",
    [
        {"overflow": "explode"},
        {"overflow": None},
        {"overflow": ["block"]},
        {"max_pending": 0},
        {"max_pending": True},
        {"max_pending": "9"},
        {"max_pending": 65_537},
    ],
)
def test_an_option_out_of_range_is_refused_and_nothing_is_subscribed(mesh: Mesh, options: dict[str, object]) -> None:
    peer = mesh.client()
    error = refusal(peer, p.Subscribe(5, "a", None, options))
    assert (error.ref, error.code) == (5, "bad_packet")
    peer.publish("a")
    assert peer.take() == []
    peer.subscribe("a")


def test_an_id_in_use_is_refused_and_the_first_subscription_goes_on(mesh: Mesh) -> None:
    peer = mesh.client()
    peer.send(p.Subscribe(5, "a"))
    assert peer.only(p.Ok).ref == 5
    assert refusal(peer, p.Subscribe(5, "b")).code == "bad_packet"
    peer.publish("a")
    peer.publish("b")
    assert [subject for _, subject, _ in peer.events()] == ["a"]


def test_ending_a_subscription_that_is_not_there_is_refused(mesh: Mesh) -> None:
    other, peer = mesh.client(), mesh.client()
    theirs = other.subscribe("a")
    error = refusal(peer, p.Unsubscribe(8, theirs))
    assert (error.ref, error.code) == (8, "bad_packet")
    peer.publish("a")
    assert len(other.events()) == 1


def test_nobody_but_the_broker_publishes_on_reserved_subjects(mesh: Mesh) -> None:
    operator, broker = mesh.client(), mesh.local()
    operator.subscribe("$log.hello")
    error = refusal(operator, p.Publish(0, "$log.hello", payload(b"forged")))
    assert error.code == "denied"
    broker.publish("$log.hello", b"true")
    assert operator.bodies() == [b"true"]
    outbox = operator.session.outbox
    assert outbox.allowance + outbox.consumed == mesh.router.limits.publish_credit


def test_wildcards_do_not_cover_reserved_subjects(mesh: Mesh) -> None:
    operator, broker = mesh.client(), mesh.local()
    for pattern in (">", "*", "*.hello", "*.>"):
        operator.subscribe(pattern)
    named = operator.subscribe("$log.*")
    broker.publish("$log.hello")
    assert operator.events() == [([named], "$log.hello", b"")]


def test_only_the_operator_subscribes_to_reserved_subjects(mesh: Mesh) -> None:
    plugin = mesh.managed("hello", "secret", pid=9)
    error = refusal(plugin, p.Subscribe(1, "$log.>"))
    assert (error.ref, error.code) == (1, "denied")
    (notice,) = mesh.notices(PeerMisbehaved)
    assert (notice.name, notice.code) == ("hello", "denied")


def test_a_retained_event_reaches_who_subscribed_before_and_who_asks_for_it_later(mesh: Mesh) -> None:
    early, publisher, late, other = (mesh.client() for _ in range(4))
    early.subscribe("mode.*")
    publisher.publish("mode.a", b"old", retain=True)
    publisher.publish("mode.a", b"new", retain=True)
    assert early.bodies() == [b"old", b"new"]
    late.send(p.Subscribe(1, "mode.a", None, {"last": True}))
    other.send(p.Subscribe(1, "mode.a"))
    ok, event = late.take()
    assert ok == p.Ok(1)
    assert bytes(event.payload) == bytes(payload(b"new"))
    assert other.all_of(p.Event) == []


def test_an_event_without_the_flag_does_not_change_the_last_value(mesh: Mesh) -> None:
    peer = mesh.client()
    peer.publish("a", b"kept", retain=True)
    peer.publish("a", b"passing")
    peer.subscribe("a", last=True)
    assert peer.bodies() == [b"kept"]


def test_last_values_come_for_every_subject_that_a_pattern_covers(mesh: Mesh) -> None:
    publisher, reader, broker = mesh.client(), mesh.client(), mesh.local()
    for subject in ("a.x", "a.y", "b.x"):
        publisher.publish(subject, subject.encode(), retain=True)
    broker.publish("$a.x", b"reserved", retain=True)
    reader.subscribe("*.x", last=True)
    assert sorted(reader.bodies()) == [b"a.x", b"b.x"]


def test_last_values_outlive_their_publisher(mesh: Mesh) -> None:
    publisher, reader = mesh.client(), mesh.client()
    publisher.publish("a", b"x", retain=True)
    publisher.leave()
    reader.subscribe("a", last=True)
    assert reader.bodies() == [b"x"]


def test_a_refused_event_is_not_retained(mesh: Mesh) -> None:
    operator = mesh.client()
    operator.publish("$a", b"forged", retain=True)
    operator.take()
    operator.subscribe("$a", last=True)
    assert operator.events() == []


def test_the_value_set_longest_ago_makes_room_and_is_counted() -> None:
    mesh = Mesh(Limits(retained_subjects=2))
    peer = mesh.client()
    for subject in ("a", "b", "a", "c"):
        peer.publish(subject, subject.encode(), retain=True)
    peer.subscribe(">", last=True)
    assert sorted(peer.bodies()) == [b"a", b"c"]
    assert mesh.counters()["retained_evicted"] == 1


def test_the_bytes_of_last_values_are_bounded() -> None:
    mesh = Mesh(Limits(retained_bytes=1000))
    peer = mesh.client()
    for number in range(10):
        peer.publish(f"n.{number}", b"x" * 300, retain=True)
    peer.subscribe(">", last=True)
    assert [subject for _, subject, _ in peer.events()] == ["n.7", "n.8", "n.9"]


def test_a_value_that_changes_often_takes_the_room_of_one() -> None:
    mesh = Mesh(Limits(retained_bytes=1000))
    peer = mesh.client()
    peer.publish("still", b"x" * 300, retain=True)
    for _ in range(20):
        peer.publish("busy", b"x" * 300, retain=True)
    peer.subscribe(">", last=True)
    assert len(peer.events()) == 2
    assert mesh.counters()["retained_evicted"] == 0


def test_a_value_too_large_to_be_kept_does_not_push_the_others_out() -> None:
    mesh = Mesh(Limits(retained_bytes=1000))
    peer = mesh.client()
    peer.publish("small", b"x", retain=True)
    peer.publish("large", b"x", retain=True)
    peer.publish("large", b"x" * 2000, retain=True)
    peer.subscribe(">", last=True)
    assert [subject for _, subject, _ in peer.events()] == ["small"]
    assert mesh.counters()["retained_evicted"] == 1
