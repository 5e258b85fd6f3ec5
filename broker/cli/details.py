"""One plugin in full, and why it does not run, for `broker status` and those who show the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from broker.cli.figures import counted, duration, several, share, size, span

COLOURS = {"running": "green", "failed": "red", "backoff": "yellow", "disabled": "bright_black"}

_MOMENT = 5.0  # seconds; a start takes some, so that up to then the time in a state is as good as the uptime
_UNCONFINED = {"asked": {"sandbox": "off"}, "in_force": {}}
_LABEL = len("registration")
_DIGEST_SHOWN = 12

Row = dict[str, Any]


def plugin_lines(row: Row) -> Iterator[str]:
    """Everything about one plugin, for a person."""
    yield _title(row)
    for name, text in _facts(row):
        first, *more = text.splitlines() or [""]
        yield f"  {click.style(name.ljust(_LABEL), dim=True)} {first}"
        yield from (f"  {'':<{_LABEL}} {line}" for line in more)


def reason(row: Row) -> str:
    """Why a plugin does not run, or what is wrong with one that does; its first line only."""
    if row["error"]:
        return str(row["error"]).splitlines()[0]
    if row["silent_secs"] and row["silent_secs"] > row["silent_limit_secs"]:
        return f"unresponsive, silent for {span(row['silent_secs'])}"
    if row["over_limits"]:
        return f"over its limits: {' and '.join(row['over_limits'])}"
    if row["health"].startswith("stuck"):
        return str(row["health"])
    busy = row["figures"]["busy_secs"]
    if busy > row["silent_limit_secs"]:
        return f"{row['figures']['busy_in'] or 'a handler'} has been busy for {span(busy)}"
    if row["slow"]:
        waiting = f": {several(row['waiting'], 'event')} waiting for it" if row["waiting"] else ""
        return f"does not keep up with its events{waiting}"
    if row["note"]:
        return str(row["note"])
    if row["state"] == "stopped" and row["last_exit"] and row["desired"] == "running":
        return str(row["last_exit"])
    return ""


def _title(row: Row) -> str:
    state = click.style(row["state"], fg=COLOURS.get(row["state"]), bold=True)
    longer = row["uptime_secs"] is not None and row["uptime_secs"] - row["since_secs"] >= _MOMENT
    up = f", up {span(row['uptime_secs'])}" if longer else ""
    process = f", process {row['pid']}" if row["pid"] else ""
    version = f" {row['version']}" if row["version"] else ""
    instance = f" (instance {row['instance']})" if row["instance"] else ""
    hand = "" if row["managed"] else ", started by hand"
    name = click.style(row["name"], bold=True)
    return f"{name}{version}{instance}, {state} for {span(row['since_secs'])}{up}{process}{hand}"


def _facts(row: Row) -> Iterator[tuple[str, str]]:
    """Name and text of each thing that is worth saying."""
    figures = row["figures"]
    if row["error"]:
        yield "why", row["error"]
    for text in dict.fromkeys(filter(None, ("" if row["error"] else reason(row), row["note"]))):
        yield "note", text
    if row["description"]:
        yield "does", row["description"]
    if row["package"]:
        yield "package", _package(row["package"])
    for each in row["quarantine"]:
        why = each["reason"].partition("\n")[0]
        yield "quarantine", f"version {each['version']} ({each['digest'][:_DIGEST_SHOWN]}): {why}"
    if row["desired"] != row["state"] and (row["state"], row["desired"]) != ("disabled", "stopped"):
        yield "wanted", row["desired"] if row["enabled"] else f"{row['desired']}, but its configuration disables it"
    yield "registration", row["registration"]
    if row["restarts"] or row["last_exit"]:
        yield "restarts", f"{row['restarts']}; last end: {row['last_exit'] or 'none'}"
    if row["exceeded"]:
        times = ", ".join(f"{name} {counted(number, 'time')}" for name, number in sorted(row["exceeded"].items()))
        yield "exceeded", f"its limit of {times}"
    if row["requires"]:
        yield "requires", ", ".join(row["requires"])
    if row["parent"]:
        yield "mounts on", f"{row['parent']}, as {row['mount']}"
    if row["sub_plugins"]:
        yield "sub-plugins", ", ".join(row["sub_plugins"])
    if row["memory_bytes"] is not None:
        processes = "one process" if row["processes"] == 1 else f"{row['processes']} processes"
        threads = counted(row["threads"], "thread")
        yield "uses", f"{size(row['memory_bytes'])}, {row['cpu_secs']:.1f} s of CPU, {threads}, {processes}"
    if row["confinement"]["in_force"] is not None and row["confinement"] != _UNCONFINED:
        yield "confinement", "\n".join(_confinement(**row["confinement"]))
    if row["session"]:
        yield from _traffic(row, figures)
    if row["log_lines_dropped"]:
        yield "log", f"{counted(row['log_lines_dropped'], 'line')} dropped: it writes too fast"


def _package(package: Row) -> str:
    """Of which file it is, in what state its signature is, and who made that."""
    by = f", signed by {package['signer']} ({package['key']})" if package["signer"] else ""
    return f"{package['state']}{by}, installed {package['installed_at'][:16].replace('T', ' ')} UTC"


def _confinement(asked: Row, in_force: Row) -> Iterator[str]:
    """What was asked for beside what is in force, and why the rest is missing."""
    yield f"asked for: {_limits(asked) or 'nothing'}"
    yield f"in force: {_limits(in_force) or 'nothing'}"
    yield from (f"missing: {reason}" for reason in in_force.get("missing", ()))


def _limits(limits: Row) -> str:
    shown = {name: size(value) if name == "memory" else value for name, value in limits.items() if name != "missing"}
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in shown.items())


def _traffic(row: Row, figures: Row) -> Iterator[tuple[str, str]]:
    heard = duration(row["silent_secs"])
    yield "session", f"{row['proof']}, {row['transport']}, {row['language'] or 'language unknown'}, heard {heard} ago"
    yield (
        "events",
        (
            f"{figures['events_handled']} handled, {figures['events_failed']} failed, {row['published']} published,"
            f" {row['waiting'] + figures['events_waiting']} waiting, {row['dropped']} dropped"
        ),
    )
    yield "requests", f"{figures['requests_handled']} handled, {figures['requests_failed']} failed"
    if figures["longest_secs"]:
        mean, longest = duration(figures["mean_secs"]), duration(figures["longest_secs"])
        yield "handlers", f"{mean} on average, {longest} at most, {share(figures['error_rate'])} errors"
    if figures["traces_withheld"]:
        yield "traces", f"{figures['traces_withheld']} not recorded that should be: beyond BROKER_TRACES_PER_SEC"
    if row["refused"]:
        yield "refused", f"{row['refused']} of its packets: see the log of the broker"
    if row["services"]:
        yield (
            "serves",
            "\n".join(
                f"{each['name']} ({each['served']} served, {each['outstanding']} running)" for each in row["services"]
            ),
        )
    if row["subscriptions"]:
        yield "listens to", "\n".join(map(_subscription, row["subscriptions"]))


def _subscription(each: Row) -> str:
    group = f", group {each['group']}" if each["group"] else ""
    counts = f", {each['waiting']} waiting" if each["waiting"] else ""
    counts += f", {each['dropped']} dropped" if each["dropped"] else ""
    return f"{each['pattern']} ({each['overflow']}{group}{counts})"
