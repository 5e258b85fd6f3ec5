"""Permissions in a running broker: the error names what is missing, and the audit log has it (SEC-1)."""

from __future__ import annotations

import sqlite3
from typing import Any

from tests.e2e.mesh import Mesh, eventually

ASKS = """
@plugin.service("do")
async def do(publish: str = "", call: str = "") -> str:
    if publish:
        await plugin.publish(publish, {})
    return await plugin.call(call, {}) if call else "done"
"""
TARGET = """
@plugin.service("get")
async def get() -> str:
    return "got"
"""


def audited(mesh: Mesh, name: str) -> list[str]:
    with sqlite3.connect(mesh.home / "broker.db") as database:
        if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 't_audit'").fetchone():
            return []  # routing begins before the database is ready
        found = database.execute("SELECT detail FROM t_audit WHERE actor = ? AND result = 'denied'", (name,))
        return [detail for (detail,) in found]


def call(mesh: Mesh, service: str, args: str) -> Any:
    return mesh.cli("call", service, args)


def test_a_plugin_can_do_what_it_asked_for_and_nothing_else(mesh: Mesh) -> None:
    section = "permissions:\n  event_bus: {publish: [a.b]}\n  services: {call: [target.get]}\n"
    mesh.add_plugin("narrow", ASKS, section)
    mesh.add_plugin("target", TARGET)
    mesh.run()
    mesh.wait_for("narrow")
    mesh.wait_for("target")
    assert call(mesh, "narrow.do", '{"publish": "a.b", "call": "target.get"}').stdout == '"got"\n'
    denied = call(mesh, "narrow.do", '{"publish": "a.c"}')
    assert denied.returncode == 1
    assert "'narrow' lacks the permission 'event_bus: publish a.c'" in denied.stderr
    denied = call(mesh, "narrow.do", '{"call": "narrow.do"}')
    assert "'narrow' lacks the permission 'services: call narrow.do'" in denied.stderr
    eventually(lambda: len(audited(mesh, "narrow")) == 2, what="both are in the audit log")
    assert "event_bus: publish a.c" in audited(mesh, "narrow")[0]


def test_a_plugin_that_may_not_subscribe_does_not_start_and_says_why(mesh: Mesh) -> None:
    body = '@plugin.subscribe("user.>")\nasync def on(event):\n    pass\n'
    mesh.add_plugin("narrow", body, "permissions:\n  event_bus: {subscribe: [user.login]}\n")
    mesh.run()
    row = mesh.wait_for("narrow", "failed")
    assert "lacks the permission 'event_bus: subscribe user.>'" in row["error"]


def test_the_operator_grants_and_takes_back_without_a_restart_of_the_broker(mesh: Mesh) -> None:
    mesh.add_plugin("narrow", ASKS, "permissions: {}\n")
    grants = mesh.home / "grants.yaml"
    grants.write_text("roles:\n  talker: {event_bus: [publish]}\nplugins:\n  narrow: {roles: [talker]}\n")
    mesh.run()
    mesh.wait_for("narrow")
    assert call(mesh, "narrow.do", '{"publish": "a.b"}').stdout == '"done"\n'
    grants.write_text("plugins:\n  narrow: {roles: [talker]}\n")
    broken = mesh.cli("reload-config")
    assert "role 'talker' of 'narrow' is not described" in broken.stderr + broken.stdout
    assert mesh.cli("check").returncode == 1
    grants.write_text("plugins: {}\n")
    assert mesh.cli("reload-config").returncode == 0
    mesh.cli("stop", "narrow")
    mesh.cli("start", "narrow")
    assert "lacks the permission" in call(mesh, "narrow.do", '{"publish": "a.b"}').stderr


def test_a_broker_with_a_broken_file_of_grants_does_not_start(mesh: Mesh) -> None:
    (mesh.home / "grants.yaml").write_text("plugins: {hello: {event_bus: maybe}}\n")
    process = mesh.spawn()
    assert process.wait(15) == 1
    assert "grants.yaml:1: plugins.hello.event_bus: is 'maybe'" in mesh.text()
    assert "Traceback" not in mesh.text()


def test_where_only_grants_count_a_plugin_without_one_may_do_nothing(mesh: Mesh) -> None:
    (mesh.home / "broker.toml").write_text('[plugin_manager]\npermissions = "granted"\n')
    mesh.add_plugin("free", ASKS)
    mesh.run()
    mesh.wait_for("free")
    assert "lacks the permission" in call(mesh, "free.do", '{"publish": "a.b"}').stderr
