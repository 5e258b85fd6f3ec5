"""Who publishes and who calls is learnt while somebody wants to know, and costs nothing before and after."""

import pytest

from broker.core import observer
from broker.core.grants import Permissions
from broker.core.observer import Observed
from plugin_sdk.wire import packets as p
from tests.core_driver import Mesh, payload


@pytest.fixture
def mesh() -> Mesh:
    return Mesh(heartbeat=5.0)


def seen(mesh: Mesh) -> Observed:
    return mesh.router.observer.seen(mesh.now)


def test_publishers_and_callers_are_known_by_name_with_how_often(mesh: Mesh) -> None:
    users = mesh.plugin("users")
    users.serve("users.get")
    web = mesh.client("web")
    mesh.router.observe(mesh.now, 60.0)
    web.send(*(p.Publish(0, "user.login", payload()) for _ in range(7)))
    web.publish("user.logout")
    web.call("users.get")
    web.call("nobody.home")
    mesh.advance(2.0)
    found = seen(mesh)
    assert found.published == {("web", "user.login"): 7, ("web", "user.logout"): 1}
    assert found.called == {("web", "users.get"): 1, ("web", "nobody.home"): 1}
    assert found.secs == 2.0


def test_nothing_is_noted_before_somebody_asks_and_after_the_time_is_over(mesh: Mesh) -> None:
    web = mesh.client("web")
    web.publish("early")
    mesh.router.observe(mesh.now, 60.0)
    web.publish("seen")
    for _ in range(14):
        mesh.advance(5.0)
    web.publish("late")
    assert seen(mesh) == Observed(0.0, {}, {}, 0)
    mesh.router.observe(mesh.now, 60.0)
    web.publish("again")
    assert seen(mesh).published == {("web", "again"): 1}


def test_events_reach_their_subscribers_while_they_are_observed(mesh: Mesh) -> None:
    reader, web = mesh.plugin("reader"), mesh.client("web")
    reader.subscribe("a")
    mesh.router.observe(mesh.now, 60.0)
    web.publish("a", b"x")
    assert len(reader.all_of(p.Event)) == 1


def test_what_is_refused_is_not_noted(mesh: Mesh) -> None:
    web = mesh.client("web")
    mesh.router.observe(mesh.now, 60.0)
    web.publish("bad..subject")
    web.send(p.Call(0, "users.get", payload(), 1000))
    assert seen(mesh) == Observed(0.0, {}, {}, 0)


def test_what_a_plugin_with_permissions_did_is_known_without_watching(mesh: Mesh) -> None:
    granted = Permissions(publish=("user.*",), call=("users.>",))
    mesh.router.admission.set_grants(lambda name: granted)
    mesh.router.admission.set_keys({"key": "hello"})
    hello = mesh.plugin("hello", token="key")
    hello.publish("user.welcome")
    hello.publish("secret.plan")
    hello.call("users.get")
    hello.call("bank.pay")
    found = mesh.router.observed(mesh.now)
    assert (found.published, found.called) == ({("hello", "user.welcome"): 0}, {("hello", "users.get"): 0})
    mesh.router.observe(mesh.now, 60.0)
    hello.publish("user.welcome")
    assert mesh.router.observed(mesh.now).published == {("hello", "user.welcome"): 1}


def test_subjects_without_end_are_counted_and_not_kept(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observer, "MAX_PAIRS", 3)
    web = mesh.client("web")
    mesh.router.observe(mesh.now, 60.0)
    for number in range(5):
        web.publish(f"user.{number}")
    web.publish("user.0")
    found = seen(mesh)
    assert len(found.published) == 3
    assert found.published["web", "user.0"] == 2
    assert found.missed == 2


def test_published_events_are_counted_beyond_the_end_of_sessions(mesh: Mesh) -> None:
    for _ in range(3):
        web = mesh.client("web")
        web.publish("a")
        web.leave()
    assert mesh.counters()["events_published"] == 3


def test_drops_of_a_subscription_are_counted_beyond_its_end(mesh: Mesh) -> None:
    reader, web = mesh.plugin("reader"), mesh.client("web")
    number = reader.subscribe("a", overflow="drop_oldest", max_pending=1)
    reader.spend_credit()
    for _ in range(4):
        web.publish("a")
    reader.unsubscribe(number)
    (view,) = [each for each in mesh.router.snapshot(mesh.now).sessions if each.name == "reader"]
    assert (view.subscriptions, view.dropped) == ((), 3)


def test_what_waits_for_a_subscription_that_ended_is_counted_when_it_is_dropped(mesh: Mesh) -> None:
    reader, web = mesh.plugin("reader"), mesh.client("web")
    first = reader.subscribe("a", overflow="drop_oldest", max_pending=1)
    reader.subscribe("b", overflow="drop_oldest", max_pending=1)
    reader.spend_credit()
    web.publish("a")
    reader.unsubscribe(first)
    web.publish("b")
    web.publish("b")
    (view,) = [each for each in mesh.router.snapshot(mesh.now).sessions if each.name == "reader"]
    assert ([each.dropped for each in view.subscriptions], view.dropped) == ([1], 2)
