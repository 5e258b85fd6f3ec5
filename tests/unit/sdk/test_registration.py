"""Attempts to register: how many, how far apart, and what the final error says."""

import asyncio
from itertools import pairwise

import pytest

from broker import __version__
from plugin_sdk import RegistrationError
from plugin_sdk.registration import SDK, AttemptFailed, AttemptMayBeRepeated, Profile, may_help, register
from plugin_sdk.testing import Mesh
from plugin_sdk.wire.codec import decode_frame, encode_frame


class Attempts:
    """Ends as it is told, and remembers when it was made."""

    def __init__(self, *outcomes: AttemptFailed | None) -> None:
        self.outcomes = list(outcomes)
        self.times: list[float] = []

    async def __call__(self) -> None:
        self.times.append(asyncio.get_running_loop().time())
        outcome = self.outcomes.pop(0)
        if outcome is not None:
            raise outcome


async def test_the_third_attempt_may_still_succeed(mesh: Mesh) -> None:
    await mesh.open()
    attempts = Attempts(AttemptMayBeRepeated("timeout", "a"), AttemptMayBeRepeated("lost", "b"), None)
    registering = asyncio.create_task(register(attempts, "hello", "ipc:///x"))
    await mesh.advance(3)
    await registering
    first, second = (later - earlier for earlier, later in pairwise(attempts.times))
    assert 0.15 <= first <= 0.6
    assert 0.35 <= second <= 0.8


async def test_after_three_attempts_the_error_names_the_cause_of_each(mesh: Mesh) -> None:
    await mesh.open()
    attempts = Attempts(
        AttemptMayBeRepeated("unavailable", "nobody listens there"),
        AttemptMayBeRepeated("timeout", "the broker did not answer within 2 s"),
        AttemptMayBeRepeated("duplicate_name", "plugin 'hello' is registered already by process 7"),
    )
    registering = asyncio.ensure_future(register(attempts, "hello", "ipc:///x"))
    await mesh.advance(3)
    with pytest.raises(RegistrationError) as caught:
        await registering
    assert caught.value.code == "duplicate_name"
    assert caught.value.text == (
        "'hello' could not register at ipc:///x: attempt 1: unavailable: nobody listens there;"
        " attempt 2: timeout: the broker did not answer within 2 s;"
        " attempt 3: duplicate_name: plugin 'hello' is registered already by process 7"
    )
    assert may_help(caught.value)


async def test_a_cause_that_every_attempt_met_is_told_once(mesh: Mesh) -> None:
    await mesh.open()
    cause = AttemptMayBeRepeated("unavailable", "nobody listens there")
    registering = asyncio.ensure_future(register(Attempts(cause, cause, cause), "hello", "ipc:///x"))
    await mesh.advance(3)
    with pytest.raises(RegistrationError) as caught:
        await registering
    assert caught.value.text == (
        "'hello' could not register at ipc:///x: 3 attempts: unavailable: nobody listens there"
    )


async def test_a_refusal_for_good_ends_it_at_once() -> None:
    attempts = Attempts(AttemptFailed("bad_token", "this key is unknown"))
    with pytest.raises(RegistrationError, match="attempt 1: bad_token: this key is unknown") as caught:
        await register(attempts, "hello", "ipc:///x")
    assert len(attempts.times) == 1
    assert not may_help(caught.value)


async def test_a_registration_can_be_cancelled_in_an_attempt_and_between_two() -> None:
    begun = asyncio.Event()

    async def for_ever() -> None:
        begun.set()
        await asyncio.Event().wait()

    async def fails() -> None:
        begun.set()
        raise AttemptMayBeRepeated("timeout", "a")

    for attempt in (for_ever, fails):
        begun.clear()
        registering = asyncio.create_task(register(attempt, "hello", "ipc:///x"))
        await begun.wait()
        await asyncio.sleep(0)
        registering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(registering, 1)


async def test_the_errors_of_a_session_that_cannot_be_opened_say_what_is_wrong(mesh: Mesh) -> None:
    await mesh.open()
    mesh.broker.stop()
    opening = asyncio.ensure_future(mesh.client())
    await mesh.advance(8)
    with pytest.raises(RegistrationError, match="unavailable: not connected to the mesh in memory yet") as caught:
        await opening
    assert caught.value.code == "unavailable"


async def test_a_broker_that_does_not_answer_is_told_apart_from_one_that_is_not_there(mesh: Mesh) -> None:
    await mesh.open()
    opening = asyncio.ensure_future(mesh.client())
    await asyncio.sleep(0)
    mesh.broker.freeze()
    await mesh.advance(8)
    with pytest.raises(RegistrationError, match="timeout: the broker did not answer within 2 s"):
        await opening


async def test_a_late_answer_to_an_earlier_attempt_is_as_good_as_one_in_time(mesh: Mesh) -> None:
    await mesh.open()
    opening = asyncio.create_task(mesh.client())
    await asyncio.sleep(0)
    mesh.broker.freeze()
    await mesh.advance(2.05)
    mesh.broker.thaw()
    await mesh.advance(3)
    bus = await opening
    assert len([each for each in mesh.snapshot().sessions if each.name == "test"]) == 1
    async with bus.subscribe("a.b") as events:
        await bus.publish("a.b", 1)
        assert (await anext(events)).data == 1


def test_a_register_is_a_frame_that_the_wire_takes_and_repeats_its_nonce() -> None:
    profile = Profile("plugin", "hello", "1.0", "blue", ["hello.greet"], {"state": "new"})
    (first,) = decode_frame(encode_frame(0, [profile.packet("token")]))[1]
    (again,) = decode_frame(encode_frame(0, [profile.packet("token")]))[1]
    assert first == again
    assert (first.role, first.name, first.services, first.token) == ("plugin", "hello", ["hello.greet"], "token")
    assert len(first.nonce) == 32
    assert Profile("plugin", "hello").nonce != first.nonce


def test_the_sdk_says_which_release_it_is_of() -> None:
    assert f"plugmesh-python/{'.'.join(__version__.split('.')[:2])}" == SDK


def test_a_version_that_the_wire_would_refuse_is_refused_here() -> None:
    with pytest.raises(ValueError, match="use 64 characters at most"):
        Profile("plugin", "hello", "1" * 65)
