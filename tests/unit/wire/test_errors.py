"""Error codes are a registry for programs; exceptions carry code and text and say whose fault it is."""

from __future__ import annotations

import copy
import pickle
import re

import pytest

from plugin_sdk.wire.errors import (
    REGISTRY,
    BusError,
    CallError,
    ConnectionLost,
    LocalProtocolError,
    ProtocolError,
    RegistrationError,
    RemoteProtocolError,
)
from plugin_sdk.wire.limits import MAX_NAME_BYTES

EVERY = [
    BusError("busy", "full"),
    ProtocolError("bad_frame", "no"),
    LocalProtocolError("bad_packet", "no"),
    RemoteProtocolError("bad_packet", "no"),
    CallError("failed", "no", {"why": 1}),
    RegistrationError("bad_token", "no"),
    ConnectionLost("gone"),
    ConnectionLost("gone", "unavailable"),
]


def test_every_code_is_a_name_that_fits_on_the_wire() -> None:
    for code, row in REGISTRY.items():
        assert row.code == code
        assert re.fullmatch("[a-z_]+", code)
        assert len(code) <= MAX_NAME_BYTES
        assert row.meaning


@pytest.mark.parametrize("error", EVERY, ids=lambda error: type(error).__name__)
def test_everything_is_caught_under_one_root_and_reads_as_code_and_text(error: BusError) -> None:
    assert isinstance(error, BusError)
    assert str(error) == f"{error.code}: {error.text}"


@pytest.mark.parametrize("error", EVERY, ids=lambda error: type(error).__name__)
def test_an_error_survives_copying_and_another_process(error: BusError) -> None:
    for twin in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(twin) is type(error)
        assert vars(twin) == vars(error)


def test_the_fault_of_the_other_side_is_not_ours() -> None:
    assert not issubclass(RemoteProtocolError, LocalProtocolError)
    assert not issubclass(LocalProtocolError, RemoteProtocolError)


def test_whether_to_retry_is_asked_of_the_registry_and_unknown_codes_say_no() -> None:
    assert all(BusError(code, "").retry is row.retry for code, row in REGISTRY.items())
    assert BusError("a_code_of_a_plugin", "").retry is False


def test_a_lost_connection_may_come_back() -> None:
    assert ConnectionLost("gone").retry
