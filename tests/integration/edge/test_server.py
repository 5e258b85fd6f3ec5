"""The edge on real sockets: nothing that arrived is lost, whoever leaves, and every peer hears what it should."""

import asyncio
import os
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import zmq

from broker.core import Router
from broker.core.notices import Notice, SessionOpened
from broker.edge.curve import new_pair
from broker.edge.selftest import unknown_key_is_refused
from broker.edge.server import READ_AHEAD, AddressUnusable, CurveServer, Edge
from broker.edge.transit import LARGE_FRAME, TRANSIT_BYTES, Transit
from tests.second import pack, unpack

KEY = "operator's key"
MIB = 1024 * 1024


@asynccontextmanager
async def serving() -> AsyncIterator[tuple[Edge, str, list[Notice]]]:
    """An edge with a real socket, served by the running loop."""
    notices: list[Notice] = []
    router = Router()
    router.admission.set_keys({KEY: "operator"})
    edge = Edge(router, notices.extend)
    with tempfile.TemporaryDirectory(prefix="pm-") as folder:
        endpoint = f"ipc://{folder}/s"
        edge.bind_ipc(endpoint)
        edge.start()
        try:
            yield edge, endpoint, notices
        finally:
            await edge.close()


@contextmanager
def dealer(endpoint: str) -> Iterator["zmq.Socket[bytes]"]:
    with zmq.Context() as context, context.socket(zmq.DEALER) as peer:
        peer.linger = 2000
        peer.rcvtimeo = 5000
        peer.connect(endpoint)
        yield peer


def register(peer: "zmq.Socket[bytes]", name: str) -> int:
    peer.send(pack([0, [1, [1], "client", name, "1", "", f"nonce of {name}", KEY]]))
    session = unpack(peer.recv())[1][2]
    assert isinstance(session, int)
    return session


def publish_and_leave(endpoint: str, number: int) -> None:
    """A peer that ends right after its last word, while credit for it is on the way."""
    with dealer(endpoint) as peer:
        session = register(peer, "publisher")
        for begin in range(0, number, 100):
            events = [[12, 0, "n", [{}, pack({"id": each, "pad": "x" * 400})]] for each in range(begin, begin + 100)]
            peer.send(pack([session, *events]))
        peer.send(pack([session, [6, "goodbye", ""]]))


def receive(peer: "zmq.Socket[bytes]", session: int, number: int) -> list[int]:
    ids: list[int] = []
    while len(ids) < number:
        events = [packet for packet in unpack(peer.recv())[1:] if packet[0] == 13]
        ids += [unpack(event[3][1])["id"] for event in events]
        peer.send(pack([session, [14, 0, 1_000_000]]))
    return ids


async def test_what_a_peer_sent_before_it_left_is_delivered() -> None:
    async with serving() as (_, endpoint, _):
        with dealer(endpoint) as subscriber:
            session = await asyncio.to_thread(register, subscriber, "subscriber")
            subscriber.send(pack([session, [10, 1, "n", None, {}]]))
            for _ in range(5):
                publishing = asyncio.create_task(asyncio.to_thread(publish_and_leave, endpoint, 4000))
                assert await asyncio.to_thread(receive, subscriber, session, 4000) == list(range(4000))
                await publishing


async def test_a_local_peer_is_known_by_the_kernel_not_by_its_word() -> None:
    async with serving() as (edge, endpoint, notices):
        with dealer(endpoint) as peer:
            session = await asyncio.to_thread(register, peer, "me")
            opened = next(each for each in notices if isinstance(each, SessionOpened))
            assert (opened.session, opened.pid) == (session, os.getpid())
            record = edge.router.session(session)
            assert record is not None
            assert (record.origin.transport, record.origin.uid) == ("ipc", os.getuid())


async def test_a_peer_that_vanished_is_given_up_when_the_next_word_cannot_reach_it() -> None:
    async with serving() as (edge, endpoint, _):
        with dealer(endpoint) as peer:
            session = await asyncio.to_thread(register, peer, "brief")
            peer.close(linger=0)
        record = edge.router.session(session)
        assert record is not None
        record.outbox.add(pack([4, 0]))
        edge.wake()
        assert await edge.until(lambda: edge.router.session(session) is None, 5.0)


async def test_large_frames_for_a_peer_that_does_not_read_wait_where_they_are_counted() -> None:
    sent = [[24, number, [{}, bytes(MIB)]] for number in range(60)]
    async with serving() as (edge, endpoint, _):
        edge._transit = Transit(32 * MIB)
        with zmq.Context() as context, context.socket(zmq.DEALER) as peer:
            peer.linger, peer.rcvtimeo, peer.rcvhwm = 0, 5000, 1
            peer.connect(endpoint)
            session = await asyncio.to_thread(register, peer, "idle")
            record = edge.router.session(session)
            assert record is not None
            for reply in sent:
                record.outbox.add(pack(reply))
            edge.wake()
            await edge.until(lambda: record.outbox.pending_bytes < 30 * MIB, 5.0)
            assert 20 * MIB < edge.router.backlog.size < 30 * MIB
            heard = [unpack(await asyncio.to_thread(peer.recv))[1] for _ in sent]
            assert heard == sent
            assert await edge.until(lambda: not record.outbox.pending_bytes, 5.0)


async def test_a_peer_that_is_behind_hears_everything_before_the_edge_is_closed() -> None:
    sent = [[24, number, [{}, bytes(MIB)]] for number in range(40)]
    async with serving() as (edge, endpoint, _):
        with dealer(endpoint) as peer:
            session = await asyncio.to_thread(register, peer, "late")
            edge._transit = Transit(16 * MIB)
            record = edge.router.session(session)
            assert record is not None
            for reply in sent:
                record.outbox.add(pack(reply))
            closing = asyncio.create_task(edge.close(10.0))
            heard = [unpack(await asyncio.to_thread(peer.recv))[1] for _ in sent]
            assert heard == sent
            assert await closing == 0


def test_peers_that_have_taken_their_large_frames_are_forgotten() -> None:
    transit, taken = Transit(), threading.Event()
    for number in range(300):
        transit.add(b"%d" % number, zmq.MessageTracker(taken), LARGE_FRAME)
    taken.set()
    transit.add(b"another", zmq.MessageTracker(threading.Event()), LARGE_FRAME)
    for number in range(300):
        transit.add(b"later %d" % number, zmq.MessageTracker(taken), LARGE_FRAME)
    assert len(transit) < 300
    assert transit.takes(b"another", TRANSIT_BYTES - LARGE_FRAME)
    assert not transit.takes(b"another", TRANSIT_BYTES)


async def test_who_sends_faster_than_the_broker_reads_keeps_the_rest_itself() -> None:
    edge = Edge(Router(), lambda _: None)
    with tempfile.TemporaryDirectory(prefix="pm-") as folder, zmq.Context() as context:
        edge.bind_ipc(f"ipc://{folder}/s")
        with context.socket(zmq.DEALER) as peer:
            peer.linger, peer.sndhwm = 0, 1
            peer.connect(f"ipc://{folder}/s")
            taken = 0
            while await asyncio.to_thread(peer.poll, 300, zmq.POLLOUT):
                peer.send(bytes(MIB))
                taken += 1
        edge.start()
        await edge.close()
    assert taken <= READ_AHEAD + 4  # and what is in the two engines and in the kernel


async def test_a_peer_that_chose_its_routing_id_is_not_admitted() -> None:
    async with serving() as (_, endpoint, _):
        with zmq.Context() as context, context.socket(zmq.DEALER) as peer:
            peer.linger, peer.rcvtimeo, peer.routing_id = 0, 5000, b"mine"
            peer.connect(endpoint)
            refused = await asyncio.to_thread(ask_as_plugin, peer, "chooser")
            assert refused[:2] == [3, "bad_packet"]
            assert "ZMQ_ROUTING_ID" in refused[2]


async def test_the_name_of_a_plugin_that_vanished_is_free_at_the_second_attempt() -> None:
    async with serving() as (edge, endpoint, _):
        with dealer(endpoint) as first:
            assert (await asyncio.to_thread(ask_as_plugin, first, "first"))[0] == 2
        with dealer(endpoint) as second:
            refused = await asyncio.to_thread(ask_as_plugin, second, "second")
            assert refused[:2] == [3, "duplicate_name"]
            assert await edge.until(lambda: edge.router.plugin_session("brief") is None, 5.0)
            assert (await asyncio.to_thread(ask_as_plugin, second, "second"))[0] == 2


def ask_as_plugin(peer: "zmq.Socket[bytes]", nonce: str) -> list[Any]:
    """Try to register as one and the same plugin; returns the answer."""
    peer.send(pack([0, [1, [1], "plugin", "brief", "1", "", nonce, KEY]]))
    answer: list[Any] = unpack(peer.recv())[1]
    return answer


async def test_a_message_of_several_frames_is_garbage_and_the_sender_stays() -> None:
    async with serving() as (edge, endpoint, _):
        with dealer(endpoint) as peer:
            session = await asyncio.to_thread(register, peer, "odd")
            peer.send_multipart([pack([session, [4, 1]]), b"more"])
            answer: list[Any] = unpack(await asyncio.to_thread(peer.recv))
            assert answer[1][:3] == [26, 0, "bad_frame"]
            assert edge.router.session(session) is not None


async def test_tcp_refuses_unknown_keys() -> None:
    async with serving() as (edge, _, _):
        public, secret = new_pair()
        bound = edge.bind_tcp("tcp://127.0.0.1:*", CurveServer(public.encode(), secret.encode()), {})
        assert await asyncio.to_thread(unknown_key_is_refused, bound, public.encode())


async def test_a_server_without_its_gate_is_found_out() -> None:
    """The proof must be able to fail: CURVE without a ZAP handler admits anybody."""
    public, secret = (each.encode() for each in new_pair())
    with zmq.Context() as context, context.socket(zmq.ROUTER) as naked:
        naked.linger = 0
        naked.curve_server = True
        naked.curve_publickey, naked.curve_secretkey = public, secret
        naked.bind("tcp://127.0.0.1:*")
        endpoint = naked.getsockopt_string(zmq.LAST_ENDPOINT)
        assert not await asyncio.to_thread(unknown_key_is_refused, endpoint, public)


async def test_an_address_in_use_is_named() -> None:
    async with serving() as (edge, _, _):
        public, secret = new_pair()
        keys = CurveServer(public.encode(), secret.encode())
        bound = edge.bind_tcp("tcp://127.0.0.1:*", keys, {})
        other = Edge(Router(), lambda _: None)
        with pytest.raises(AddressUnusable, match=bound):
            other.bind_ipc(bound)
        other.start()
        await other.close()


def test_the_folder_of_the_socket_is_private(tmp_path: Path) -> None:
    from broker.home import prepare_socket

    folder = tmp_path / "run"
    folder.mkdir(mode=0o755)
    prepare_socket(folder / "broker.sock")
    assert folder.stat().st_mode & 0o777 == 0o700
