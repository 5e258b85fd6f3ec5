"""Why a plugin is not reachable: everything known about it, and one answer with the next step to take (OPS-6).

Pure: a frozen view in, an answer out. The checks stand in the order in which a person would go through them: whether
there is such a plugin, whether it is to run, whether it came up, whether it gets on, whether it may.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from math import inf
from typing import Any

from broker.control.health import NO_LINK, Health
from broker.control.lately import Incident
from broker.control.ports import PluginFacts
from broker.core.snapshot import SessionView

REACHABLE = "reachable"
RECENT_SECS = 60.0  # for so long a second process that was refused is the better answer for one that runs well

_UP = ("waiting", "spawning", "registering", "initializing", "starting")


@dataclass(frozen=True, slots=True)
class Case:
    """All that is known of one plugin at one moment.

    Args:
        name: what was asked for.
        plugin: from the supervisor, if it knows such a plugin.
        session: its session, if it has one.
        health: judged from that.
        incidents: what was refused to this name of late, newest last.
        says: what it said of itself when asked just now; empty when it was not asked.
        process: state of its process as the kernel has it.
        known: the names of all plugins.
        place: where plugin folders are put.
        packages: why package files of it are not taken, a text for each.
    """

    name: str
    plugin: PluginFacts | None = None
    session: SessionView | None = None
    health: Health = NO_LINK
    incidents: Sequence[Incident] = ()
    says: Mapping[str, Any] = field(default_factory=dict)
    process: str = ""
    known: Sequence[str] = ()
    place: str = "the plugin folder"
    packages: Sequence[str] = ()

    def refused(self, within: float = inf) -> Incident | None:
        """The last registration that was refused, if it is no older than so many seconds."""
        found = [each for each in self.incidents if each.kind == "registration" and each.age <= within]
        return found[-1] if found else None


@dataclass(frozen=True, slots=True)
class Answer:
    """Why, for programs and for people, and what to do next."""

    cause: str
    text: str
    step: str


def explain(case: Case) -> Answer:
    """The one answer."""
    checks = _OF_THE_UNKNOWN if case.plugin is None else _OF_THE_KNOWN
    for check in checks:
        if answer := check(case):
            return answer
    return _reachable(case)


def _refused(case: Case, within: float = inf) -> Answer | None:
    incident = case.refused(within)
    if incident is None:
        return None
    who = f"process {incident.pid}" if incident.pid else "a process"
    text = f"{who} wanted to register as {case.name!r} {incident.age:.0f} s ago and was refused: {incident.text}"
    return Answer(_REFUSALS.get(incident.code, "refused"), text, _STEPS.get(incident.code, _ANY_STEP).format(case.name))


_REFUSALS = {"bad_token": "wrong_key", "duplicate_name": "duplicate_name", "bad_version": "bad_version"}
_STEPS = {
    "bad_token": "make a key for it with `broker key add {0}`, or let the broker start it: `broker start {0}`",
    "duplicate_name": "stop one of the two processes, or give the second one an instance name",
    "bad_version": "install an SDK for this process that speaks the broker's protocol version",
    "denied": "run the process as the user of the broker, or connect over TCP with a key",
}
_ANY_STEP = "change what the text names in the process of {0}, and start it again"


def _package_refused(case: Case) -> Answer | None:
    if not case.packages:
        return None
    text = f"plugin {case.name!r} is not installed, because its package is refused: {case.packages[-1]}"
    return Answer("package_refused", text, "do what the text says, then `broker reload-config`")


def _never_seen(case: Case) -> Answer:
    near = get_close_matches(case.name, case.known, n=1)
    hint = f"did you mean {near[0]!r}? Otherwise " if near else ""
    text = f"no plugin {case.name!r} is installed, and no process has tried to register under this name"
    return Answer("never_started", text, f"{hint}put its folder into {case.place}, then `broker start {case.name}`")


def _second_process(case: Case) -> Answer | None:
    # One that was refused before this session began has done better since.
    age = case.session.age if case.session else RECENT_SECS
    return _refused(case, min(RECENT_SECS, age)) if _plugin(case).state == "running" else None


def _disabled(case: Case) -> Answer | None:
    plugin = _plugin(case)
    if plugin.state != "disabled":
        return None
    by = plugin.note or "its configuration says 'enabled: false'"
    return Answer("disabled", f"plugin {case.name!r} is disabled: {by}", f"`broker enable {case.name}`")


def _failed(case: Case) -> Answer | None:
    plugin = _plugin(case)
    if plugin.state != "failed":
        return None
    cause, step = _FAILURES.get(plugin.cause, _FAILURES["start"])
    culprit = plugin.chain[-1] if plugin.chain else case.name
    step = step.format(case.name, culprit if culprit != case.name else case.name)
    again = f"; it is tried again in {plugin.retry_in:.0f} s" if plugin.retry_in is not None else ""
    return Answer(cause, plugin.error, step + again)


_FAILURES = {
    "manifest": ("bad_manifest", "correct the file that is named, then `broker start {0}`"),
    "dependency": ("dependency", "`broker why {1}`; when that runs, {0} is started by itself"),
    "quarantine": ("quarantined", "put a version that works into its folder, or `broker start {0} --force`"),
    "start": ("start_failed", "read `broker logs {0}`, correct what the text names, then `broker start {0}`"),
    "crashes": ("crashes", "read `broker logs {0}`, correct the plugin, then `broker start {0}`"),
    "ended": ("ended", "its restart policy leaves it so; read `broker logs {0}`, then `broker start {0}`"),
    "limit": (
        "over_limit",
        "find out why with `broker logs {0}`, or raise its limit in config/{0}.yaml, then `broker start {0}`",
    ),
    "defect": ("defect", "this is a defect of the broker: report it with the broker's log, then `broker start {0}`"),
}


def _missing_dependency(case: Case) -> Answer | None:
    plugin = _plugin(case)
    if plugin.state != "failed" or plugin.cause != "dependency" or len(plugin.chain) > 1:
        return None
    step = f"do what the text says about its dependency; {case.name} is then started by `broker start {case.name}`"
    return Answer("dependency", plugin.error, step)


def _in_backoff(case: Case) -> Answer | None:
    plugin = _plugin(case)
    if plugin.state != "backoff":
        return None
    when = f"in {plugin.retry_in:.1f} s" if plugin.retry_in is not None else "in a moment"
    text = f"plugin {case.name!r} is tried again {when}, after {plugin.restarts} restarts: {plugin.error}"
    return Answer("backoff", text, f"read `broker logs {case.name}`; `broker start {case.name}` tries it at once")


def _on_its_way(case: Case) -> Answer | None:
    plugin = _plugin(case)
    if plugin.state not in _UP:
        return None
    others = [*filter(None, [plugin.parent]), *plugin.requires]
    needs = f"for {', '.join(others)} or " if others else "for "
    waits = f": it waits {needs}its turn" if plugin.state == "waiting" else ""
    again = ", once more after its session was lost" if plugin.state == "registering" and plugin.runs else ""
    text = f"plugin {case.name!r} is {plugin.state} since {plugin.since:.1f} s{waits}{again}"
    return Answer("starting", text, f"wait; if it stays so, read `broker logs {case.name}`")


def _stopped(case: Case) -> Answer | None:
    plugin = _plugin(case)
    if plugin.state == "stopping":
        return Answer(
            "stopping", f"plugin {case.name!r} is stopping since {plugin.since:.1f} s", "wait until it is gone"
        )
    if plugin.state != "stopped":
        return None
    if not plugin.managed and plugin.last_exit:
        text = f"plugin {case.name!r} was started by hand, was registered, and is gone: {plugin.last_exit}"
        return _refused(case, plugin.since) or Answer("lost", text, "start its process again")
    if plugin.error:
        return Answer("start_failed", plugin.error, f"correct what the text names, then `broker start {case.name}`")
    if not plugin.runs and not plugin.last_exit:
        text = f"plugin {case.name!r} has not been started since the broker runs"
        return _refused(case) or Answer("never_started", text, f"`broker start {case.name}`")
    if plugin.desired == "running":
        text = f"plugin {case.name!r} ended by itself ({plugin.last_exit}), and its restart policy is content with that"
        return Answer("ended", text, f"`broker start {case.name}`, or set 'restart: always'")
    text = f"plugin {case.name!r} {plugin.note or 'was stopped by order'}"
    return Answer(
        "stopped", text, f"`broker start {case.name}`; `broker audit --plugin {case.name}` says who stopped it"
    )


def _frozen(case: Case) -> Answer | None:
    if case.process not in ("T", "t"):
        return None
    pid = _pid(case)
    text = f"the process of plugin {case.name!r} is held by a signal (SIGSTOP) or a debugger"
    return Answer("frozen", text, f"let it go on: `kill -CONT {pid}`")


def _blocked_loop(case: Case) -> Answer | None:
    if not case.health.silent:
        return None
    taken = ", ".join(each.name for each in case.session.services if each.outstanding) if case.session else ""
    inside = f"; it has requests of {taken} in hand" if taken else ""
    text = (
        f"process {_pid(case)} of plugin {case.name!r} lives, but its event loop has said nothing for"
        f" {case.health.silent:.0f} s{inside}: something blocks it"
    )
    step = "make the handler await, or a plain function, which runs in a thread"
    return Answer("loop_blocked", text, f"{step}; for now `broker reload {case.name}`")


def _stuck(case: Case) -> Answer | None:
    if not case.health.stuck:
        return None
    text = f"plugin {case.name!r} is {case.health.text}; its loop still answers"
    step = f"give that handler a timeout, or raise its concurrency; for now `broker reload {case.name}`"
    return Answer("stuck", text, step)


def _drained(case: Case) -> Answer | None:
    if case.session is None or case.session.routed:
        return None
    text = f"plugin {case.name!r} runs, but was drained: it gets no requests and events"
    return Answer("drained", text, f"`broker drain {case.name} --undo`")


def _not_ready(case: Case) -> Answer | None:
    if case.says.get("ok", True):
        return None
    reason = case.says.get("reason") or "without a reason"
    text = f"plugin {case.name!r} is alive, but says that it is not well: {reason}"
    return Answer("not_ready", text, "set right what it names; it goes on by itself then")


def _over_limits(case: Case) -> Answer | None:
    over = _plugin(case).over
    if not over:
        return None
    text = f"plugin {case.name!r} runs, but is over its limits: it {' and '.join(over)}"
    step = f"raise the limit in config/{case.name}.yaml, or let it be ended then with `limits: {{over: restart}}`"
    return Answer("over_limit", text, f"{step}; for now `broker reload {case.name}`")


def _denied(case: Case) -> Answer | None:
    denials = [each for each in case.incidents if each.kind == "denied"]
    if not denials:
        return None
    text = f"plugin {case.name!r} runs, but something was denied to it {denials[-1].age:.0f} s ago: {denials[-1].text}"
    return Answer("denied", text, "grant it, or use a name that is its own; `broker audit` has all that was denied")


def _at_its_limit(case: Case) -> Answer | None:
    full = [each for each in case.session.services if each.outstanding >= each.limit] if case.session else []
    if not full:
        return None
    told = ", ".join(f"{each.name} ({each.outstanding} of {each.limit})" for each in full)
    text = f"plugin {case.name!r} runs, but all places for requests are taken: {told}"
    return Answer(
        "busy", text, "raise the concurrency of the service, or start a further process with an instance name"
    )


def _silent_on_the_bus(case: Case) -> Answer | None:
    if case.session is None or case.session.services or case.session.subscriptions:
        return None
    text = f"plugin {case.name!r} runs, but serves nothing and listens to nothing"
    return Answer("serves_nothing", text, "look whether its handlers are declared before run() is called")


def _reachable(case: Case) -> Answer:
    services = [each.name for each in case.session.services] if case.session else []
    patterns = [each.pattern for each in case.session.subscriptions] if case.session else []
    serves = f"serves {', '.join(services)}" if services else "serves nothing"
    listens = f" and listens to {', '.join(patterns)}" if patterns else ""
    text = f"plugin {case.name!r} is reachable: it {serves}{listens}"
    if case.health.text:
        text += f"; {case.health.text}"
    plugin = _plugin(case)
    if plugin.restarts:
        times = "once" if plugin.restarts == 1 else f"{plugin.restarts} times"
        text += f"; it was restarted {times}, and its last run {plugin.last_exit}"
    if case.packages:
        text += f"; another version of it is refused: {case.packages[-1].splitlines()[0]}"
    return Answer(REACHABLE, text, "if a caller fails all the same, the code and text of its error say why")


def _plugin(case: Case) -> PluginFacts:
    assert case.plugin is not None
    return case.plugin


def _pid(case: Case) -> int | str:
    pid = (case.session.pid if case.session else 0) or _plugin(case).pid
    return pid or "unknown"


_Check = Callable[[Case], Answer | None]
_OF_THE_UNKNOWN: Sequence[_Check] = (_refused, _package_refused, _never_seen)
_OF_THE_KNOWN: Sequence[_Check] = (
    _second_process,
    _disabled,
    _missing_dependency,
    _failed,
    _in_backoff,
    _on_its_way,
    _stopped,
    _frozen,
    _blocked_loop,
    _stuck,
    _drained,
    _not_ready,
    _over_limits,
    _denied,
    _at_its_limit,
    _silent_on_the_bus,
)
