"""Who is admitted, under which name, and what everybody else is told."""

from typing import Any

import pytest

from broker.core.notices import PeerMisbehaved, RegistrationRefused, SessionLost, SessionOpened
from plugin_sdk.wire import packets as p
from plugin_sdk.wire.codec import encode_frame
from tests.core_driver import OPERATOR_KEY, Mesh, Peer


@pytest.fixture
def mesh() -> Mesh:
    return Mesh(heartbeat=2.5, uids=(0, 1000))


def refused(peer: Peer, **changes: Any) -> p.Refused:
    answer = peer.ask(**changes)
    assert isinstance(answer, p.Refused), answer
    assert not peer.is_registered()
    return answer


def test_an_admitted_peer_is_told_its_session_its_pace_and_every_limit_it_must_keep(mesh: Mesh) -> None:
    answer = mesh.connect().ask(name="hello")
    assert isinstance(answer, p.Registered)
    assert (answer.version, answer.heartbeat_ms, answer.identity) == (1, 2500, "hello")
    assert answer.session > 0
    assert answer.credit == mesh.router.limits.publish_credit
    for limit in ("frame_bytes", "packets_per_frame", "chunk_credit", "pending_requests", "subscriptions", "services"):
        assert answer.limits[limit] == getattr(mesh.router.limits, limit)


def test_an_opened_session_is_reported_with_who_it_is_and_how_it_proved_that(mesh: Mesh) -> None:
    peer = mesh.managed("hello", "secret", pid=77, info={"state": "running"})
    assert mesh.notices(SessionOpened) == [
        SessionOpened(peer.number, "hello", "plugin", "managed", 77, "1.0.0", "secret", "running")
    ]


def test_sessions_have_different_numbers(mesh: Mesh) -> None:
    assert len({mesh.client(f"c{number}").number for number in range(100)}) == 100


@pytest.mark.parametrize("versions", [[], [2], [0, 99]])
def test_a_peer_without_a_common_version_is_refused_and_told_both_sides(mesh: Mesh, versions: list[int]) -> None:
    answer = refused(mesh.connect(), versions=versions)
    assert (answer.code, answer.retry) == ("bad_version", False)
    assert f"peer speaks {versions}, broker [1]" in answer.text


def test_the_highest_common_version_is_chosen(mesh: Mesh) -> None:
    answer = mesh.connect().ask(versions=[0, 1, 2, 9])
    assert answer.version == 1


@pytest.mark.parametrize(
    ("change", "code", "text"),
    [
        ({"role": "broker"}, "bad_packet", "role 'broker' is unknown: use one of plugin, client"),
        ({"role": ""}, "bad_packet", "role '' is unknown"),
        ({"name": ""}, "bad_name", "name '' is not allowed"),
        ({"name": "a.b"}, "bad_name", "name 'a.b' is not allowed"),
        ({"name": "$broker"}, "bad_name", "name '$broker' is not allowed"),
        ({"instance": "two words"}, "bad_name", "name 'two words' is not allowed"),
        ({"nonce": ""}, "bad_packet", "nonce"),
        ({"token": None}, "bad_token", "no token or key was shown"),
        ({"token": ""}, "bad_token", "no token or key was shown"),
        ({"token": "guess"}, "bad_token", "this token or key is unknown"),
    ],
)
def test_a_register_with_a_mistake_is_refused_with_the_reason(
    mesh: Mesh, change: dict[str, Any], code: str, text: str
) -> None:
    answer = refused(mesh.connect(), **change)
    assert answer.code == code
    assert text in answer.text


def test_a_refused_peer_may_try_again_on_the_same_connection(mesh: Mesh) -> None:
    peer = mesh.connect()
    refused(peer, token="wrong")
    peer.register(name="hello")
    assert peer.is_registered()


def test_a_refusal_is_reported_and_counted(mesh: Mesh) -> None:
    refused(mesh.connect(pid=5), name="hello", token="wrong")
    (notice,) = mesh.notices(RegistrationRefused)
    assert (notice.name, notice.code, notice.pid, notice.transport, notice.token) == (
        "hello",
        "bad_token",
        5,
        "ipc",
        "wrong",
    )
    assert mesh.counters()["refused"] == 1


def test_a_user_who_is_not_served_is_refused_even_with_the_right_key(mesh: Mesh) -> None:
    answer = refused(mesh.connect(uid=33))
    assert answer.code == "denied"
    assert "user id 33 may not connect; the broker serves [0, 1000]" in answer.text


def test_a_user_who_is_served_is_admitted(mesh: Mesh) -> None:
    assert mesh.connect(uid=1000).register().is_registered()


def test_without_a_list_of_users_every_user_is_served() -> None:
    assert Mesh().connect(uid=33).register().is_registered()


def test_the_operator_key_admits_every_name_and_makes_an_operator(mesh: Mesh) -> None:
    for name in ("hello", "anything"):
        identity = mesh.connect().register(name=name).session.identity
        assert (identity.name, identity.proof, identity.operator) == (name, "operator", True)


def test_a_key_admits_its_one_name_and_makes_no_operator(mesh: Mesh) -> None:
    mesh.router.admission.set_keys({"mine": "sensor"})
    identity = mesh.connect().register(name="sensor", token="mine").session.identity
    assert (identity.proof, identity.operator) == ("key", False)
    answer = refused(mesh.connect(), name="logger", token="mine")
    assert (answer.code, answer.text) == ("bad_token", "this key admits 'sensor', not 'logger'")


def test_a_key_that_was_taken_away_admits_nobody(mesh: Mesh) -> None:
    mesh.router.admission.set_keys({})
    assert refused(mesh.connect(), token=OPERATOR_KEY).code == "bad_token"


def test_a_proven_curve_user_needs_no_token_and_gets_no_other_name(mesh: Mesh) -> None:
    origin = {"transport": "tcp", "pid": 0, "group": 0, "uid": -1}
    identity = mesh.connect(user="sensor", **origin).register(name="sensor", token=None).session.identity
    assert (identity.proof, identity.operator) == ("curve", False)
    assert refused(mesh.connect(user="sensor", **origin), name="logger").code == "bad_token"
    operator = mesh.connect(user="operator", **origin).register(name="cli", role="client", token=None)
    assert (operator.session.identity.proof, operator.session.identity.operator) == ("curve", True)


def test_a_token_admits_the_process_it_was_made_for(mesh: Mesh) -> None:
    peer = mesh.managed("hello", "secret", pid=77)
    assert (peer.session.identity.proof, peer.session.pid, peer.session.token) == ("managed", 77, "secret")
    assert not peer.session.identity.operator


def test_a_token_admits_a_child_in_the_process_group_too(mesh: Mesh) -> None:
    mesh.router.admission.expect("secret", "hello", 77)
    peer = mesh.connect(pid=78, group=77).register(name="hello", token="secret")
    assert peer.session.pid == 78


def test_a_managed_plugin_has_the_version_of_its_manifest_whatever_its_process_says(mesh: Mesh) -> None:
    mesh.router.admission.expect("secret", "hello", 77, version="2.0")
    assert (
        mesh.connect(pid=77, group=77).register(name="hello", token="secret", version="0.1.0").session.version == "2.0"
    )
    assert mesh.connect(pid=78).register(name="logger", version="0.1.0").session.version == "0.1.0"


def test_a_token_in_the_hands_of_another_process_admits_nobody(mesh: Mesh) -> None:
    mesh.router.admission.expect("secret", "hello", 77)
    answer = refused(mesh.connect(pid=99, group=99), name="hello", token="secret")
    assert (answer.code, answer.retry) == ("bad_token", False)
    assert answer.text == "this token was made for process 77, but process 99 shows it"


def test_a_token_does_not_admit_another_name(mesh: Mesh) -> None:
    mesh.router.admission.expect("secret", "hello", 77)
    answer = refused(mesh.connect(pid=77, group=77), name="logger", token="secret")
    assert "made for plugin 'hello', but the process registers as 'logger'" in answer.text


def test_a_forgotten_token_admits_nobody(mesh: Mesh) -> None:
    mesh.router.admission.expect("secret", "hello", 77)
    mesh.router.admission.forget("secret")
    assert refused(mesh.connect(pid=77, group=77), name="hello", token="secret").code == "bad_token"


def test_a_second_plugin_of_a_name_is_refused_and_told_the_pid_of_the_first(mesh: Mesh) -> None:
    first = mesh.connect(pid=41).register(name="hello")
    answer = refused(mesh.connect(pid=42), name="hello")
    assert (answer.code, answer.retry) == ("duplicate_name", True)
    assert "plugin 'hello' is registered already by process 41" in answer.text
    assert first.is_registered()


def test_whoever_holds_a_name_that_another_one_wants_is_asked_whether_it_is_there(mesh: Mesh) -> None:
    first = mesh.connect(pid=41).register(name="hello")
    first.take()
    refused(mesh.connect(pid=42), name="hello")
    assert first.take() == [p.Ping(0)]


def test_the_name_is_free_again_when_the_first_has_gone(mesh: Mesh) -> None:
    first = mesh.plugin("hello")
    first.leave()
    second = mesh.plugin("hello")
    assert mesh.router.plugin_session("hello") == second.number


def test_another_instance_of_a_plugin_is_admitted_beside_the_first(mesh: Mesh) -> None:
    first, second = mesh.plugin("hello"), mesh.plugin("hello", instance="b")
    assert first.is_registered()
    assert second.is_registered()
    assert refused(mesh.connect(), name="hello", instance="b").code == "duplicate_name"


def test_clients_may_share_a_name(mesh: Mesh) -> None:
    assert mesh.client("cli").is_registered()
    assert mesh.client("cli").is_registered()
    assert mesh.router.plugin_session("cli") is None


def test_the_same_process_on_a_new_connection_replaces_its_old_session(mesh: Mesh) -> None:
    old = mesh.plugin("hello", nonce="once")
    old.serve("hello.greet")
    caller = mesh.client()
    ref = caller.call("hello.greet")
    new = mesh.plugin("hello", nonce="once")
    assert not old.is_registered()
    assert new.number != old.number
    (lost,) = mesh.notices(SessionLost)
    assert (lost.session, lost.code) == (old.number, "replaced")
    error = caller.only(p.Error)
    assert (error.ref, error.code) == (ref, "lost")


def test_a_register_repeated_on_its_connection_is_answered_the_same(mesh: Mesh) -> None:
    peer = mesh.connect()
    first = peer.ask(name="hello", versions=[1, 2])
    mesh.notices(SessionOpened)
    assert peer.ask(name="hello", versions=[1, 2]) == first
    assert mesh.notices(SessionOpened) == []
    assert len(mesh.router.snapshot(mesh.now).sessions) == 1


@pytest.mark.parametrize("versions", [[], [7], [1, 2]])
def test_a_repeated_register_is_answered_with_the_version_that_was_agreed(mesh: Mesh, versions: list[int]) -> None:
    peer = mesh.plugin("hello")
    assert peer.ask(name="hello", versions=versions).version == 1


@pytest.mark.parametrize("changes", [{"nonce": "other"}, {"name": "other"}])
def test_a_different_register_on_a_registered_connection_is_refused_and_harms_nothing(
    mesh: Mesh, changes: dict[str, Any]
) -> None:
    peer = mesh.plugin("hello")
    answer = peer.ask(**{"name": "hello", **changes})
    assert (answer.code, answer.retry) == ("already_registered", False)
    assert "registered already, as plugin 'hello'" in answer.text
    peer.send(p.Ping(9))
    assert peer.only(p.Pong).number == 9
    assert mesh.router.plugin_session("hello") == peer.number


def test_a_register_under_the_number_of_its_session_is_an_error_inside_that_session(mesh: Mesh) -> None:
    peer = mesh.plugin("hello")
    peer.send(peer.hello(name="hello"))
    error = peer.only(p.Error)
    assert (error.ref, error.code) == (0, "already_registered")
    assert peer.is_registered()


def test_while_draining_nobody_is_admitted_but_the_broker_itself(mesh: Mesh) -> None:
    mesh.router.drain()
    answer = refused(mesh.connect())
    assert (answer.code, answer.retry) == ("shutting_down", True)
    assert mesh.local().is_registered()


def test_the_pid_that_a_peer_over_tcp_claims_is_never_shown_as_a_fact(mesh: Mesh) -> None:
    origin = {"transport": "tcp", "pid": 0, "group": 0, "uid": -1, "user": "sensor"}
    mesh.connect(**origin).register(name="sensor", info={"pid": 31})
    (seen,) = mesh.router.snapshot(mesh.now).sessions
    assert (seen.pid, seen.claimed_pid) == (0, 31)
    assert mesh.notices(SessionOpened)[0].pid == 0
    second = refused(mesh.connect(**origin), name="sensor")
    assert "already by a peer over tcp that calls itself process 31" in second.text


def test_a_peer_of_the_socket_is_known_by_the_kernel_whatever_it_claims(mesh: Mesh) -> None:
    mesh.connect(pid=41).register(name="hello", info={"pid": 1})
    (seen,) = mesh.router.snapshot(mesh.now).sessions
    assert (seen.pid, seen.claimed_pid) == (41, 0)


def test_a_pid_that_is_no_number_counts_as_unknown(mesh: Mesh) -> None:
    origin = {"transport": "tcp", "pid": 0, "group": 0, "uid": -1, "user": "sensor"}
    assert mesh.connect(**origin).register(name="sensor", info={"pid": "31"}).session.claimed_pid == 0


def test_a_peer_that_says_goodbye_is_gone_with_its_own_words(mesh: Mesh) -> None:
    peer = mesh.plugin("hello")
    peer.send(p.Goodbye("done", "switched off"), p.Ping(1))
    assert peer.take() == []
    (lost,) = mesh.notices(SessionLost)
    assert (lost.name, lost.code, lost.text) == ("hello", "goodbye", "switched off")


def test_a_closed_session_is_told_why(mesh: Mesh) -> None:
    peer = mesh.plugin("hello")
    mesh.router.close(peer.number, "denied", "its key was taken away", mesh.now)
    mesh.deliver()
    assert peer.only(p.Goodbye) == p.Goodbye("denied", "its key was taken away")
    assert not peer.is_registered()


def test_closing_or_losing_a_session_twice_changes_nothing(mesh: Mesh) -> None:
    peer = mesh.plugin("hello")
    peer.vanish()
    peer.vanish()
    mesh.router.close(peer.number, "lost", "again", mesh.now)
    assert len(mesh.notices(SessionLost)) == 1


def test_when_the_broker_stops_every_peer_is_told(mesh: Mesh) -> None:
    peers = [mesh.plugin("hello"), mesh.client()]
    mesh.router.say_goodbye("shutting_down", "the broker stops")
    mesh.deliver()
    for peer in peers:
        assert peer.only(p.Goodbye) == p.Goodbye("shutting_down", "the broker stops")


def test_the_transport_can_ask_whether_an_address_is_registered(mesh: Mesh) -> None:
    peer = mesh.connect()
    assert not mesh.router.knows(peer.address)
    peer.register()
    assert mesh.router.knows(peer.address)
    peer.leave()
    assert not mesh.router.knows(peer.address)


def test_what_is_said_to_a_peer_within_one_turn_stays_in_order(mesh: Mesh) -> None:
    peer = mesh.connect()
    frames = (
        encode_frame(0, [p.Ping(1)]),
        encode_frame(0, [peer.hello(nonce="")]),
        encode_frame(0, [peer.hello()]),
        encode_frame(0, [p.Ping(2)]),
        encode_frame(0, [peer.hello()]),
        encode_frame(0, [peer.hello(nonce="another")]),
    )
    for frame in frames:
        mesh.router.receive(peer.address, frame, mesh.now, peer.origin)
    mesh.deliver()
    answers = [packet.code if isinstance(packet, p.Refused) else type(packet).__name__ for packet in peer.take()]
    assert answers == [
        "unknown_session",
        "bad_packet",
        "Registered",
        "unknown_session",
        "Registered",
        "already_registered",
    ]


def test_the_end_of_a_session_is_told_before_the_beginning_of_the_next(mesh: Mesh) -> None:
    peer = mesh.plugin("hello")
    mesh.router.close(peer.number, "denied", "its key was taken away", mesh.now)
    mesh.router.receive(peer.address, encode_frame(0, [peer.hello(name="hello")]), mesh.now, peer.origin)
    mesh.deliver()
    assert [type(packet) for packet in peer.take()] == [p.Goodbye, p.Registered]


def test_good_behaviour_is_never_reported_as_bad(mesh: Mesh) -> None:
    mesh.plugin("hello").leave()
    assert mesh.notices(PeerMisbehaved) == []
