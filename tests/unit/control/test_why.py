"""One answer for every situation, the one that a person would give who had looked at everything."""

from dataclasses import replace
from typing import Any

import pytest

from broker.control.health import NO_LINK, Health, judge
from broker.control.lately import MAX_NAMES, Incident, Lately
from broker.control.why import Case, explain
from broker.core.snapshot import ServiceView, SessionView
from broker.supervisor.view import PluginView

WELL = Health(link=True)
BEAT = 5.0


def plugin(**changes: Any) -> PluginView:
    """A plugin that runs well, with changes."""
    usual = PluginView(
        name="hello",
        version="1.0",
        description="",
        state="running",
        desired="running",
        register_status=2,
        managed=True,
        enabled=True,
        pid=4711,
        session=1,
        restarts=0,
        uptime=10.0,
        since=10.0,
        error="",
        note="",
        last_exit="",
        requires=(),
        cause="",
        chain=(),
        retry_in=None,
        runs=1,
        log_dropped=0,
    )
    return replace(usual, **changes)


def session(**changes: Any) -> SessionView:
    """Its session, with changes."""
    usual = SessionView(
        number=1,
        name="hello",
        role="plugin",
        version="1.0",
        instance="",
        proof="managed",
        transport="ipc",
        pid=4711,
        claimed_pid=4711,
        language="",
        sdk="",
        age=10.0,
        silent=0.5,
        subscriptions=(),
        services=(ServiceView("hello.greet", 0, 7, 64),),
        published=0,
        dropped=0,
        errors=0,
        calls=0,
        serving=0,
        pending_bytes=0,
        waiting=0,
        waiting_bytes=0,
        stats={},
        routed=True,
    )
    return replace(usual, **changes)


def refusal(code: str, text: str = "no", age: float = 5.0) -> Incident:
    return Incident("registration", code, text, 99, age)


def running(**changes: Any) -> Case:
    """All is well, but for the changes."""
    return replace(Case("hello", plugin(), session(), WELL), **changes)


def down(**changes: Any) -> Case:
    """It has no session, for the reason in the changes of its view."""
    return Case("hello", plugin(session=None, pid=None, **changes))


@pytest.mark.parametrize(
    ("case", "cause", "text", "step"),
    [
        (Case("hello"), "never_started", "no plugin 'hello' is installed", "put its folder into"),
        (
            Case("hello", packages=["hello-1.spk: unsigned: no"]),
            "package_refused",
            "hello-1.spk: unsigned",
            "reload-conf",
        ),
        (Case("helo", known=["hello"]), "never_started", "no plugin 'helo'", "did you mean 'hello'?"),
        (Case("hello", incidents=[refusal("bad_token", "unknown key")]), "wrong_key", "unknown key", "broker key add"),
        (Case("hello", incidents=[refusal("bad_version")]), "bad_version", "refused", "install an SDK"),
        (running(incidents=[refusal("duplicate_name")]), "duplicate_name", "process 99", "instance name"),
        (running(incidents=[refusal("bad_token", age=30)]), "reachable", "hello.greet", "the code"),
        (down(state="disabled"), "disabled", "'enabled: false'", "broker enable hello"),
        (down(state="failed", cause="manifest", error="line 3"), "bad_manifest", "line 3", "correct the file"),
        (
            down(state="failed", cause="dependency", error="needs base", chain=("hello", "base")),
            "dependency",
            "needs base",
            "`broker why base`",
        ),
        (
            down(state="failed", cause="dependency", error="not installed", chain=("hello",)),
            "dependency",
            "not installed",
            "do what the text says",
        ),
        (down(state="failed", cause="limit", error="exited: it uses"), "over_limit", "it uses", "config/hello.yaml"),
        (down(state="stopped", desired="stopped", runs=0, last_exit="died"), "stopped", "by order", "start hello"),
        (down(state="failed", cause="quarantine", error="quarantined since"), "quarantined", "since", "--force"),
        (down(state="failed", cause="start", error="no port"), "start_failed", "no port", "broker logs hello"),
        (
            down(state="failed", cause="crashes", error="too often", retry_in=290.0),
            "crashes",
            "too often",
            "it is tried again in 290 s",
        ),
        (down(state="failed", cause="ended", error="status 3"), "ended", "status 3", "restart policy"),
        (down(state="failed", cause="defect", error="KeyError"), "defect", "KeyError", "report it"),
        (down(state="backoff", retry_in=2.0, restarts=3), "backoff", "again in 2.0 s, after 3 restarts", "at once"),
        (down(state="waiting", requires=("base",)), "starting", "it waits for base or its turn", "wait"),
        (down(state="registering"), "starting", "registering since 10.0 s", "wait"),
        (down(state="registering", runs=2), "starting", "after its session was lost", "wait"),
        (down(state="stopping"), "stopping", "stopping since", "wait"),
        (down(state="stopped", desired="stopped"), "stopped", "by order", "broker audit --plugin hello"),
        (down(state="stopped", runs=0), "never_started", "has not been started", "broker start hello"),
        (down(state="stopped", last_exit="exited with status 0"), "ended", "by itself", "restart: always"),
        (down(state="stopped", managed=False, last_exit="lost: gone"), "lost", "lost: gone", "start its process"),
        (running(process="T"), "frozen", "SIGSTOP", "kill -CONT 4711"),
        (running(health=Health(link=True, silent=33.0)), "loop_blocked", "nothing for 33 s", "broker reload hello"),
        (
            running(health=Health(link=True, handler="hello.greet", busy=40.0, stuck=True)),
            "stuck",
            "stuck in handler hello.greet for 40 s",
            "timeout",
        ),
        (running(session=session(routed=False)), "drained", "was drained", "--undo"),
        (running(says={"ok": False, "reason": "no disk"}), "not_ready", "no disk", "set right"),
        (
            Case("hello", plugin(over=("uses 9 GiB",)), session(), WELL),
            "over_limit",
            "it uses 9 GiB",
            "raise the limit",
        ),
        (running(incidents=[Incident("denied", "denied", "may not serve", 1, 2.0)]), "denied", "may not", "grant it"),
        (running(session=session(services=(ServiceView("hello.x", 4, 9, 4),))), "busy", "hello.x (4 of 4)", "raise"),
        (running(session=session(services=())), "serves_nothing", "serves nothing", "declared"),
        (running(), "reachable", "it serves hello.greet", "the code and text"),
        (
            running(plugin=plugin(restarts=2, last_exit="was ended by SIGKILL: the kernel killed it")),
            "reachable",
            "it was restarted 2 times, and its last run was ended by SIGKILL: the kernel killed it",
            "the code",
        ),
        (
            running(packages=["hello-2.spk: truncated: its end is missing\nmore"]),
            "reachable",
            "hello.greet; another version of it is refused: hello-2.spk: truncated: its end is missing",
            "the code",
        ),
    ],
)
def test_the_answer_names_the_cause_and_the_next_step(case: Case, cause: str, text: str, step: str) -> None:
    answer = explain(case)
    assert answer.cause == cause
    assert text in answer.text
    assert step in answer.step


def test_what_comes_first_for_a_person_comes_first() -> None:
    """A frozen process is silent, too, and its handler may be stuck: to let it go on is the step to take."""
    silent = Health(link=True, silent=60.0)
    assert explain(running(process="T", health=silent)).cause == "frozen"
    assert explain(running(health=silent, says={"ok": False})).cause == "loop_blocked"


@pytest.mark.parametrize(
    ("silent", "stats", "text"),
    [
        (1.0, {}, ""),
        (1.0, {"busy_secs": 4.0, "busy_in": "service a.b"}, ""),
        (1.0, {"busy_secs": 12.0, "busy_in": "service a.b"}, "busy in handler a.b for 12 s"),
        (1.0, {"busy_secs": 31.0, "busy_in": "subscription x.>"}, "stuck in handler x.> for 31 s"),
        (16.0, {"busy_secs": 31.0, "busy_in": "service a.b"}, "unresponsive, silent for 16 s"),
        (1.0, {"busy_secs": "long", "busy_in": 3}, ""),
    ],
)
def test_link_loop_and_handler_are_told_apart(silent: float, stats: dict[str, Any], text: str) -> None:
    assert judge(session(silent=silent, stats=stats), BEAT).text == text


def test_without_a_session_there_is_no_link() -> None:
    assert judge(None, BEAT) is NO_LINK


def test_what_was_refused_is_remembered_for_a_while_and_within_a_bound() -> None:
    now = [0.0]
    lately = Lately(lambda: now[0])
    lately.note("hello", "registration", "bad_token", "no", 1)
    now[0] = 100.0
    assert [each.age for each in lately.of("hello")] == [100.0]
    now[0] = 1000.0
    assert lately.of("hello") == []
    for number in range(2 * MAX_NAMES):
        lately.note(f"p{number}", "registration", "bad_token", "no", 1)
    assert lately.of("p0") == []
    assert lately.of(f"p{2 * MAX_NAMES - 1}")
