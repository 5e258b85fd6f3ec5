"""Peers that keep to no rule are told so by a typed error, and two others who are at work do not notice."""

import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from plugin_sdk.wire import limits
from tests.e2e.mesh import Mesh
from tools.disorder.attacks import ATTACKS
from tools.disorder.bounds import BOUNDS
from tools.disorder.hostile import come_and_vanish, grown
from tools.disorder.ring import Ring

# What is no bound of a peer: the size at which senders close a frame, and how much an operator may write.
OTHERS = {"FRAME_TARGET", "MAX_PATTERNS", "SUPPORTED_VERSIONS"}


@pytest.fixture(scope="module")
def ring() -> Iterator[Ring]:
    with Ring() as made:
        yield made


def test_every_bound_of_the_protocol_has_an_attack() -> None:
    constants = {name for name in vars(limits) if name.isupper() and not name.startswith("DEFAULT")}
    assert set(BOUNDS) == constants - OTHERS | set(limits.Limits.__dataclass_fields__)


@pytest.mark.parametrize("bound", BOUNDS)
def test_a_bound_that_is_reached_costs_only_who_reaches_it(ring: Ring, bound: str) -> None:
    BOUNDS[bound](ring)
    ring.victims.check()


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_an_attack_harms_nobody_else(ring: Ring, attack: Callable[[Ring], None]) -> None:
    attack(ring)
    ring.victims.check()


def test_hundreds_of_peers_that_come_and_vanish_leave_nothing_behind(ring: Ring) -> None:
    sizes = come_and_vanish(ring, 600, legs=3)
    assert not grown(sizes[0], sizes[-1]), sizes
    ring.victims.check()


def test_more_connections_than_the_usual_limit_of_descriptors_do_not_end_the_broker(mesh: Mesh) -> None:
    usual, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    mesh.add_plugin("small")
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, most))
    try:
        mesh.run()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (usual, most))
    plugin = mesh.wait_for("small")["pid"]
    assert resource.prlimit(plugin, resource.RLIMIT_NOFILE) == (100, most)
    with ExitStack() as mute:
        for _ in range(200):
            mute.enter_context(socket.socket(socket.AF_UNIX)).connect(str(mesh.home / "run" / "broker.sock"))
        assert mesh.plugin("small")["state"] == "running"
    assert mesh.stop() == 0, mesh.text()
