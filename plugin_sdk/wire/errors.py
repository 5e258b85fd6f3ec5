"""The registry of error codes and the exceptions that carry them.

A code is stable and meant for programs, the text beside it is meant for people. Blame is in the exception type:
`LocalProtocolError` is a bug on this side of the wire, `RemoteProtocolError` one on the other side.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ErrorCode:
    """One row of the registry.

    `retry` says whether the same request, sent again later and unchanged, may succeed.
    """

    code: str
    retry: bool
    meaning: str


REGISTRY: dict[str, ErrorCode] = {
    row.code: row
    for row in (
        ErrorCode("unavailable", True, "no instance of the service is registered"),
        ErrorCode("timeout", True, "the deadline passed; the handler may have run"),
        ErrorCode("cancelled", False, "the caller cancelled the request"),
        ErrorCode("lost", True, "the other side went away before it answered; the handler may have run"),
        ErrorCode("busy", True, "every instance is at its limit and the queue is full"),
        ErrorCode("failed", False, "the handler raised"),
        ErrorCode("bad_request", False, "the handler refused the arguments"),
        ErrorCode("denied", False, "the permission for it is missing"),
        ErrorCode("shutting_down", True, "the broker or the plugin is stopping"),
        ErrorCode("bad_subject", False, "the subject or pattern breaks the grammar"),
        ErrorCode("bad_frame", False, "the frame is not a valid array of packets"),
        ErrorCode("bad_packet", False, "the packet is not allowed here or its values are out of range"),
        ErrorCode("too_large", False, "a size limit was exceeded"),
        ErrorCode("limit", False, "a count limit was exceeded"),
        ErrorCode("unsupported", False, "the packet kind or option is unknown to this side"),
        ErrorCode("unknown_session", True, "the sender is not registered, or not under this session number"),
        ErrorCode("already_registered", False, "this connection is registered already"),
        ErrorCode("duplicate_name", True, "another live process is registered under this name"),
        ErrorCode("bad_version", False, "no common protocol version"),
        ErrorCode("bad_name", False, "the name breaks the grammar or is reserved"),
        ErrorCode("bad_token", False, "the token or key admits nobody, or not under this name"),
        ErrorCode("bad_config", False, "the plugin refused its configuration"),
        ErrorCode("disabled", False, "the configuration says disabled"),
        ErrorCode("slow_consumer", True, "the peer did not read what it had asked for"),
    )
}


class BusError(Exception):
    """Root of everything plugmesh raises.

    Args:
        code: a code of `REGISTRY`, or the code a handler of another plugin chose.
        text: one sentence for a person.
    """

    def __init__(self, code: str, text: str) -> None:
        super().__init__(code, text)
        self.code = code
        self.text = text

    def __str__(self) -> str:
        return f"{self.code}: {self.text}"

    @property
    def retry(self) -> bool:
        """Whether sending the same again later may succeed."""
        row = REGISTRY.get(self.code)
        return row is not None and row.retry


class ProtocolError(BusError):
    """The wire protocol was broken."""


class LocalProtocolError(ProtocolError):
    """This side tried to break the protocol: a bug here."""


class RemoteProtocolError(ProtocolError):
    """The other side broke the protocol: a bug, or an attack, there."""


class CallError(BusError):
    """A request ended without a reply: the code says why, `details` holds what the handler added."""

    def __init__(self, code: str, text: str, details: object = None) -> None:
        super().__init__(code, text)
        self.details = details


class RegistrationError(BusError):
    """The broker did not admit this process; the text lists what every attempt met."""


class ConnectionLost(BusError):
    """The link to the broker is gone or was never there."""

    def __init__(self, text: str, code: str = "lost") -> None:
        super().__init__(code, text)
