"""Who may register, under which name.

A name is never believed because a peer says it: a managed plugin proves it by the one-time token that was given to
its very process, a hand-started one by a key that admits this name, a peer over TCP by its CURVE key, the operator by
the operator key. See docs/PROTOCOL.md, "Registration".
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from broker.core.grants import UNRESTRICTED, Permissions
from broker.core.sessions import Identity, Origin
from plugin_sdk.wire import packets as p
from plugin_sdk.wire.errors import BusError
from plugin_sdk.wire.limits import SUPPORTED_VERSIONS
from plugin_sdk.wire.subjects import check_name

ROLES = ("plugin", "client")
OPERATOR = "operator"


class Refusal(BusError):
    """The registration is refused: code, text, and whether trying again can help."""


@dataclass(frozen=True, slots=True)
class Expected:
    """A start of a managed plugin that has not registered yet, or may register again after a lost link.

    `mount`: the name under which it serves, when that is not its own. `routed`: whether its services and subscriptions
    come into force at once, or with a switch. `version`: what its manifest says, which goes before what it says itself.
    """

    plugin_id: str
    pid: int
    permissions: Permissions
    mount: str = ""
    routed: bool = True
    version: str = ""


class Admission:
    """Tokens and keys that admit; `uids` are the users that may connect over ipc, empty for any."""

    def __init__(self, uids: Collection[int] = ()) -> None:
        self._uids = frozenset(uids)
        self._expected: dict[str, Expected] = {}
        self._keys: dict[str, str] = {}
        self._grants: Callable[[str], Permissions] = lambda name: UNRESTRICTED
        self.closed = False

    def expect(
        self,
        token: str,
        plugin_id: str,
        pid: int,
        permissions: Permissions = UNRESTRICTED,
        *,
        mount: str = "",
        routed: bool = True,
        version: str = "",
    ) -> None:
        """Admit the process `pid`, or one of its process group, as `plugin_id` when it shows `token`."""
        self._expected[token] = Expected(plugin_id, pid, permissions, mount, routed, version)

    def set_routed(self, token: str, routed: bool) -> None:
        """Whether a process that registers again by this token is routed."""
        if token in self._expected:
            self._expected[token] = replace(self._expected[token], routed=routed)

    def forget(self, token: str) -> None:
        """Admit nobody by this token any more."""
        self._expected.pop(token, None)

    def set_keys(self, keys: dict[str, str]) -> None:
        """Replace the keys: from key to the one plugin name that it admits, or to `operator` for every name."""
        self._keys = dict(keys)

    def set_grants(self, grants: Callable[[str], Permissions]) -> None:
        """Decide from now on with `grants` what those may do that the broker did not start, by their proven name."""
        self._grants = grants

    def admit(self, packet: p.Register, origin: Origin) -> tuple[int, Identity]:
        """Protocol version and proven identity of a peer; raises Refusal or BadSubject."""
        version = self._negotiate(packet)
        if origin.transport == "local":
            return version, Identity(packet.name, "local", operator=True)
        if origin.chosen:
            text = "the connection chose its routing id, and whoever takes it next would hear what is for this one"
            raise Refusal("bad_packet", f"{text} (do not set ZMQ_ROUTING_ID)")
        if self.closed:
            raise Refusal("shutting_down", "the broker is shutting down and admits nobody")
        if packet.role not in ROLES:
            raise Refusal("bad_packet", f"role {packet.role!r} is unknown: use one of {', '.join(ROLES)}")
        check_name(packet.name)
        if not packet.nonce:
            text = "the nonce is empty: a random text tells a second try of one process from a second process"
            raise Refusal("bad_packet", text)
        if packet.instance:
            check_name(packet.instance)
        if origin.uid >= 0 and self._uids and origin.uid not in self._uids:
            raise Refusal("denied", f"user id {origin.uid} may not connect; the broker serves {sorted(self._uids)}")
        return version, self._identify(packet, origin)

    def _negotiate(self, packet: p.Register) -> int:
        common = set(packet.versions) & set(SUPPORTED_VERSIONS)
        if not common:
            text = f"no common protocol version: peer speaks {packet.versions}, broker {list(SUPPORTED_VERSIONS)}"
            raise Refusal("bad_version", text)
        return max(common)

    def _identify(self, packet: p.Register, origin: Origin) -> Identity:
        if origin.user:
            return self._by_grant(packet, origin.user, "curve")
        if not packet.token:
            text = "no token or key was shown: start it by the broker, or let it read the keys in the broker's home"
            raise Refusal("bad_token", text)
        expected = self._expected.get(packet.token)
        if expected is not None:
            return _by_start(packet, origin, expected)
        granted = self._keys.get(packet.token)
        if granted is None:
            raise Refusal("bad_token", "this token or key is unknown: tokens end with the process they were made for")
        return self._by_grant(packet, granted, "key")

    def _by_grant(self, packet: p.Register, granted: str, proof: str) -> Identity:
        if granted == OPERATOR:
            # The operator may do everything, and tries out a plugin under the permissions that it will have.
            permissions = self._grants(packet.name) if packet.role == "plugin" else UNRESTRICTED
            return Identity(packet.name, "operator" if proof == "key" else proof, True, permissions)
        if granted != packet.name:
            raise Refusal("bad_token", f"this key admits {granted!r}, not {packet.name!r}")
        return Identity(granted, proof, permissions=self._grants(granted))


def _by_start(packet: p.Register, origin: Origin, expected: Expected) -> Identity:
    if packet.name != expected.plugin_id:
        text = f"this token was made for plugin {expected.plugin_id!r}, but the process registers as {packet.name!r}"
        raise Refusal("bad_token", text)
    if origin.pid and expected.pid not in (origin.pid, origin.group):
        text = f"this token was made for process {expected.pid}, but process {origin.pid} shows it"
        raise Refusal("bad_token", text)
    return Identity(
        expected.plugin_id,
        "managed",
        permissions=expected.permissions,
        mount=expected.mount,
        routed=expected.routed,
        version=expected.version,
    )
