"""`broker status`: one screen that says first what is wrong."""

import click
import pytest

from broker.cli.details import plugin_lines
from broker.cli.session import printable
from broker.cli.status import screen
from broker.control.slow import slow_as_map
from broker.core.snapshot import SlowView
from tests.unit.cli.answers import TROUBLE, failed, running
from tests.unit.telemetry.document import view


def slow(name: str, secs: float) -> SlowView:
    return SlowView(
        session=1,
        name=name,
        role="client",
        instance="",
        patterns=("user.>",),
        overflow="block",
        max_pending=10,
        waiting=0,
        waiting_bytes=0,
        unread_bytes=10,
        dropped=0,
        secs=secs,
        publishers=("shop",),
    )


def plain(lines: list[str]) -> list[str]:
    return [click.unstyle(line) for line in lines]


@pytest.mark.parametrize(("width", "height"), [(80, 24), (200, 50)])
@pytest.mark.parametrize("number", [0, 6, 60])
def test_it_fits_on_one_screen(number: int, width: int, height: int) -> None:
    lines = plain(screen(running(number, *([failed()] if number else [])), width, height))
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    shown = "\n".join(lines)
    assert f"{number + bool(number)} plugins, {number} running" in shown
    assert all(f"plugin{index:02}" in shown for index in range(number))


def test_what_is_wrong_comes_first_and_says_why() -> None:
    lines = plain(screen(running(2, failed("zebra")), 120, 24))
    table = lines[lines.index("") + 1 :]
    assert table[1].startswith("zebra")
    assert table[2].strip() == TROUBLE
    assert table[3].startswith("plugin00")


def test_a_screen_that_is_too_small_even_for_that_says_how_much_is_missing() -> None:
    many = [failed(f"bad{number}") for number in range(30)]
    lines = plain(screen(running(1, *many), 80, 24))
    assert len(lines) == 24
    assert lines[-1].startswith("… ")
    assert "broker status --all" in lines[-1]
    assert len(plain(screen(running(1, *many), 80, None))) > 60


def test_stopped_plugins_are_named_when_the_table_is_too_long() -> None:
    answer = running(60, view("resting", state="stopped", desired="stopped", register_status=0))
    shown = "\n".join(plain(screen(answer, 80, 24)))
    assert "1 are stopped or disabled:\n  resting" in shown


def test_a_plugin_that_runs_may_have_something_wrong_too() -> None:
    answer = running(3)
    answer["plugins"][0]["silent_secs"] = 60.0
    answer["plugins"][1] |= {"slow": True, "waiting": 1200}
    answer["plugins"][2]["figures"] |= {"busy_secs": 90.0, "busy_in": "service plugin02.slow"}
    shown = "\n".join(plain(screen(answer, 120, None)))
    assert "unresponsive, silent for 1.0 min" in shown
    assert "does not keep up with its events: 1.2k events waiting for it" in shown
    assert "service plugin02.slow has been busy for 1.5 min" in shown


def test_the_broker_says_what_is_wrong_with_itself() -> None:
    answer = running(1)
    answer["broker"]["database"] = {"status": "down", "reason": "disk full", "pending": 7, "written": 0, "dropped": 2}
    answer["slow_consumers"] = [slow_as_map(slow(f"slow{secs}", secs)) for secs in range(5)]
    answer["broker"]["warnings"] = ["no metrics: port in use\n  and more about that"]
    shown = "\n".join(plain(screen(answer, 120, None)))
    assert "database down, 7 writes waiting, 2 writes lost: disk full" in shown
    assert "slow consumer slow4: user.> (block) for 4 s: 10 B sent and not handled; holds up shop" in shown
    assert "… and 2 more slow consumers" in shown
    assert "no metrics: port in use" in shown
    assert "more about that" not in shown


def test_one_plugin_is_told_in_sentences_and_not_in_json() -> None:
    answer = running(1, events_handled=9, events_failed=1, handling_secs=0.02, longest_secs=0.01)
    row = answer["plugins"][0]
    row["services"] = [{"name": "plugin00.add", "served": 3, "outstanding": 1, "limit": 10}]
    row["subscriptions"] = [{"pattern": "user.*", "group": "g", "overflow": "drop_oldest", "waiting": 2, "dropped": 1}]
    shown = "\n".join(plain(list(plugin_lines(row))))
    assert "plugin00 1.0, running for 1.0 min, process 1000" in shown
    assert "9 handled, 1 failed, 0 published, 0 waiting, 0 dropped" in shown
    assert "2.0 ms on average, 10 ms at most, 10.0 % errors" in shown
    assert "plugin00.add (3 served, 1 running)" in shown
    assert "user.* (drop_oldest, group g, 2 waiting, 1 dropped)" in shown
    assert "1.0 MiB, 2.0 s of CPU, 3 threads, one process" in shown
    assert "{" not in shown


def test_what_the_operator_did_to_a_plugin_stands_with_it() -> None:
    answer = running(1, view("dark", state="disabled", desired="stopped", note="disabled with `broker disable`"))
    drained = answer["plugins"][1] | {"note": "drained: it gets nothing new"}
    assert not [line for line in plain(list(plugin_lines(answer["plugins"][0]))) if "wanted" in line]
    assert "  note         drained: it gets nothing new" in plain(list(plugin_lines(drained)))
    shown = plain(screen(answer | {"plugins": [answer["plugins"][0], drained]}, 80, None))
    assert "    disabled with `broker disable`" in shown
    assert "    drained: it gets nothing new" in shown


def test_whose_package_it_is_and_which_version_of_it_is_in_quarantine_stand_with_it() -> None:
    package = {
        "version": "1.0",
        "state": "expired",
        "signer": "ada",
        "key": "1a7dbc4751fdc4d0",
        "digest": "fe" * 32,
        "installed_at": "2026-11-21T18:11:51+00:00",
    }
    kept_out = {"version": "1.1", "digest": "70" * 32, "since": "2026-11-21T18:12:00", "reason": "it crashed\nmore"}
    row = running(1)["plugins"][0] | {"package": package, "quarantine": [kept_out]}
    shown = plain(list(plugin_lines(row)))
    assert "  package      expired, signed by ada (1a7dbc4751fdc4d0), installed 2026-11-21 18:11 UTC" in shown
    assert "  quarantine   version 1.1 (707070707070): it crashed" in shown


def test_what_nothing_is_known_of_is_left_out() -> None:
    row = running(1)["plugins"][0]
    row["confinement"] = {"asked": {"sandbox": "off"}, "in_force": {}}
    labels = [line.split()[0] for line in plain(list(plugin_lines(row)))[1:]]
    assert "registration" in labels
    assert not {"confinement", "handlers", "serves", "requires", "why"} & set(labels)


def test_what_a_plugin_was_to_give_up_stands_beside_what_it_gave_up() -> None:
    asked = {"sandbox": "best-effort", "memory": 256 << 20}
    in_force = {"memory": 256 << 20, "no_new_privs": True, "missing": ["landlock: this kernel has none"]}
    row = running(1)["plugins"][0] | {"confinement": {"asked": asked, "in_force": in_force}}
    shown = [line.removeprefix("  confinement ").strip() for line in plain(list(plugin_lines(row)))]
    assert "asked for: sandbox best-effort, memory 256 MiB" in shown
    assert "in force: memory 256 MiB, no new privs True" in shown
    assert "missing: landlock: this kernel has none" in shown


def test_the_whole_error_stands_with_the_plugin() -> None:
    answer = running(0, failed(error="it failed\n  attempt 1: no\nthe last lines it wrote:\n  boom"))
    lines = plain(list(plugin_lines(answer["plugins"][0])))
    assert lines[1].split() == ["why", "it", "failed"]
    assert lines[4].strip() == "boom"


def test_uptime_is_the_time_since_the_start_and_beside_it_stands_the_time_in_the_present_state() -> None:
    answer = running(0, failed(), view("leaving", state="stopping", uptime=4000.0, since=2.0))
    bad, leaving = answer["plugins"]
    assert (bad["uptime_secs"], bad["since_secs"]) == (None, 60.0)
    assert (leaving["uptime_secs"], leaving["since_secs"]) == (4000.0, 2.0)
    assert "leaving 1.0, stopping for 2 s, up 1.1 h" in plain(list(plugin_lines(leaving)))[0]


def test_nothing_that_a_plugin_says_steers_the_terminal() -> None:
    answer = printable(running(0, failed(error="red \x1b[31m alert \a\r\nthe last lines it wrote:\n  \x9b2J")))
    shown = "\n".join(plugin_lines(answer["plugins"][0]))
    assert "\x1b[31m alert" not in shown
    assert not {"\a", "\r", "\x9b"} & set(shown)
    assert "the last lines it wrote:" in shown
