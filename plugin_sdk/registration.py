"""Getting admitted: what is sent, how often it is tried, and what the final error says."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_attempt,
    wait_exponential,
    wait_random,
)

from plugin_sdk.wire import packets as p
from plugin_sdk.wire.errors import BusError, RegistrationError
from plugin_sdk.wire.limits import MAX_NAME_BYTES, SUPPORTED_VERSIONS

ATTEMPTS = 3
FIRST_WAIT = 0.2
LONGEST_WAIT = 2.0
SDK = "plugmesh-python/0.1"


class AttemptFailed(BusError):
    """One attempt to register failed, and another one would too."""


class AttemptMayBeRepeated(AttemptFailed):
    """One attempt to register failed, but another one may succeed."""


@dataclass(slots=True)
class Profile:
    """What a process says about itself when it registers; raises ValueError for a version that is too long."""

    role: str
    name: str
    version: str = "0"
    instance: str = ""
    services: list[str] = field(default_factory=list)
    info: dict[str, Any] = field(default_factory=dict)
    nonce: str = field(default_factory=lambda: os.urandom(16).hex())

    def __post_init__(self) -> None:
        if len(self.version) > MAX_NAME_BYTES:
            raise ValueError(f"version {self.version[:80]!r} of {self.name!r}: use {MAX_NAME_BYTES} characters at most")

    def packet(self, token: str) -> p.Register:
        """The REGISTER that says it."""
        return p.Register(
            versions=list(SUPPORTED_VERSIONS),
            role=self.role,
            name=self.name,
            version=self.version,
            instance=self.instance,
            nonce=self.nonce,
            token=token or None,
            language="python {}.{}.{}".format(*sys.version_info),
            sdk=SDK,
            services=self.services,
            info={"pid": os.getpid(), **self.info},
        )


async def register(attempt: Callable[[], Awaitable[None]], name: str, endpoint: str, attempts: int = ATTEMPTS) -> None:
    """Try to register, with exponential waits and jitter in between.

    Args:
        attempt: one attempt; raises AttemptFailed or AttemptMayBeRepeated.
        name: who registers, for the error.
        endpoint: where, for the error.
        attempts: how often at most.

    Raises:
        RegistrationError: with the code of the last attempt and the cause of every one.
    """
    causes: list[AttemptFailed] = []

    def note(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        if isinstance(error, AttemptFailed):
            causes.append(error)

    # Never retry_if_not_exception_type: on coroutines it swallows cancellation (tenacity issue 529).
    retrying = AsyncRetrying(
        stop=stop_after_attempt(attempts),
        wait=wait_exponential(multiplier=FIRST_WAIT, max=LONGEST_WAIT) + wait_random(0, FIRST_WAIT),
        retry=retry_if_exception_type(AttemptMayBeRepeated),
        after=note,
        reraise=True,
    )
    try:
        await retrying(attempt)
    except AttemptFailed as error:
        if len(causes) < attempts and not isinstance(error, AttemptMayBeRepeated):
            causes.append(error)
        raise RegistrationError(error.code, f"{name!r} could not register at {endpoint}: {_told(causes)}") from error


def _told(causes: list[AttemptFailed]) -> str:
    """Every attempt with its cause; a cause that all of them share is told once."""
    texts = [str(cause) for cause in causes]
    if len(texts) > 1 and len(set(texts)) == 1:
        return f"{len(texts)} attempts: {texts[0]}"
    return "; ".join(f"attempt {number}: {text}" for number, text in enumerate(texts, start=1))


def may_help(error: RegistrationError) -> bool:
    """Whether the broker, or the lack of one, left room for another try."""
    return isinstance(error.__cause__, AttemptMayBeRepeated)


def was_refused(error: BusError) -> bool:
    """Whether a broker said no, or would for the lack of a key; otherwise none could be reached, or it was stopping."""
    if isinstance(error, RegistrationError):
        return error.code not in ("unavailable", "timeout", "lost", "shutting_down")
    return error.code == "bad_token"
