"""What is said to a notify socket, against a real one."""

import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from broker.systemd.notify import Notifier, reloading, status


@contextmanager
def listening(address: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ears:
        ears.bind(address.replace("@", "\0", 1))
        ears.settimeout(5)
        yield ears


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_messages_arrive_line_by_line(tmp_path: Path, kind: str) -> None:
    address = str(tmp_path / "notify") if kind == "path" else f"@plugmesh-test-{os.getpid()}"
    with listening(address) as ears, closing(Notifier({"NOTIFY_SOCKET": address})) as notifier:
        assert notifier.is_heard
        notifier.tell("READY=1", status("two lines\nbecome one"))
        assert ears.recv(4096) == b"READY=1\nSTATUS=two lines become one"


def test_a_reload_carries_the_monotonic_time_in_microseconds() -> None:
    first, second = reloading().split("\n")
    assert first == "RELOADING=1"
    name, _, usec = second.partition("=")
    assert name == "MONOTONIC_USEC"
    assert 0 <= time.monotonic() - int(usec) / 1_000_000 < 5


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:9"}])
def test_without_a_socket_that_it_understands_it_is_silent(environ: dict[str, str]) -> None:
    notifier = Notifier(environ)
    notifier.tell("READY=1")
    notifier.close()
    assert not notifier.is_heard


def test_a_manager_that_is_gone_is_told_of_once_and_harms_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nowhere = {"NOTIFY_SOCKET": str(tmp_path / "nowhere")}
    with closing(Notifier(nowhere)) as notifier, caplog.at_level(logging.WARNING):
        notifier.tell("READY=1")
        notifier.tell("WATCHDOG=1")
    assert caplog.text.count("systemd does not hear the broker") == 1


def test_a_manager_that_does_not_read_keeps_nobody_waiting_and_hears_everything_later(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with listening(address) as ears, closing(Notifier({"NOTIFY_SOCKET": address})) as notifier:
        sent = [f"STATUS={number}" for number in range(40)]
        for line in sent:
            notifier.tell(line)
        heard: list[str] = []
        while len(heard) < len(sent):
            heard.append(ears.recv(4096).decode())
            notifier.flush()
        assert heard == sent
