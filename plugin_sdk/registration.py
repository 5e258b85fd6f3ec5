"""Getting admitted: what is sent, how often it is tried, and what the final error says."""

from __future__ import annotations

import os
import platform
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Any

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from plugin_sdk.wire import packets as p
from plugin_sdk.wire.errors import BusError, RegistrationError
from plugin_sdk.wire.limits import SUPPORTED_VERSIONS

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
    """What a process says about itself when it registers."""

    role: str
    name: str
    version: str = "0"
    instance: str = ""
    services: list[str] = field(default_factory=list)
    info: dict[str, Any] = field(default_factory=dict)
    nonce: str = field(default_factory=lambda: token_hex(16))

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
            language=f"python {platform.python_version()}",
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
    causes: list[str] = []

    def note(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        if error is not None:
            causes.append(f"attempt {state.attempt_number}: {error}")

    # Never retry_if_not_exception_type: on coroutines it swallows cancellation (tenacity issue 529).
    retrying = AsyncRetrying(
        stop=stop_after_attempt(attempts),
        wait=wait_exponential_jitter(initial=FIRST_WAIT, max=LONGEST_WAIT, jitter=FIRST_WAIT),
        retry=retry_if_exception_type(AttemptMayBeRepeated),
        after=note,
        reraise=True,
    )
    try:
        await retrying(attempt)
    except AttemptFailed as error:
        if len(causes) < attempts and not isinstance(error, AttemptMayBeRepeated):
            causes.append(f"attempt {len(causes) + 1}: {error}")
        text = f"{name!r} could not register at {endpoint}: " + "; ".join(causes)
        raise RegistrationError(error.code, text) from None
