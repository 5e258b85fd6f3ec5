"""Packages through the real command line and a real broker: installed, upgraded, refused, removed (PKG-1 to PKG-5)."""

import asyncio
import json
import os
import re
import shutil
import signal
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from packaging.version import Version

from broker.packages.archive import open_archive
from broker.packages.build import add_signature, build, write_zip
from broker.packages.keys import make_recipient_pair
from broker.supervisor import landlock
from plugin_sdk import CallError, connect
from tests.e2e.mesh import Mesh, eventually
from tests.e2e.packages import Maker, audited, traces
from tests.e2e.test_sandbox import CURIOUS
from tests.unit.packages.making import FILES_OF_SMALL, Raw, manifest_of, package_of, raw_zip

DIES = "raise SystemExit('cannot run')"


@pytest.fixture
def maker(mesh: Mesh) -> Maker:
    return Maker(mesh.home.parent / "maker").trusted_by(mesh)


def installed_version(mesh: Mesh, name: str = "small") -> str:
    """What the running plugin itself says."""

    async def ask() -> str:
        async with connect(home=mesh.home, name="test") as bus:
            answer: str = await bus.call(f"{name}.version", {}, wait_ready=5.0)
            return answer

    return asyncio.run(ask())


class TestTheGuide:
    def test_from_a_new_key_to_a_signed_installed_and_upgraded_plugin(self, mesh: Mesh, tmp_path: Path) -> None:
        """What docs/guide tells a reader to type, in its order."""
        maker = Maker(tmp_path / "plain")
        folder = maker.folder("small", "1.0.0", manifest="description: says its version\n")
        out = str(tmp_path)
        assert mesh.cli("package", "keygen", "me", "--out", out).returncode == 0
        assert mesh.cli("package", "trust", f"{out}/me.pub").returncode == 0
        built = mesh.cli("package", "build", str(folder), "--out", out)
        assert built.stdout.startswith(f"{out}/small-1.0.0.spk"), built.stderr
        assert mesh.cli("package", "verify", f"{out}/small-1.0.0.spk").returncode == 1
        assert mesh.cli("package", "sign", f"{out}/small-1.0.0.spk", "--key", f"{out}/me.key").returncode == 0
        verified = mesh.cli("package", "verify", f"{out}/small-1.0.0.spk")
        assert "small 1.0.0: valid, signed by me (" in verified.stdout
        mesh.run()
        done = mesh.cli("install", f"{out}/small-1.0.0.spk", "--yes")
        assert "says its version" in done.stdout
        assert "small 1.0.0 is installed (valid)\nsmall is running (process " in done.stdout, done.stderr
        assert installed_version(mesh) == "1.0.0"
        folder = maker.folder("small", "1.1.0")
        assert mesh.cli("package", "build", str(folder), "--out", out, "--key", f"{out}/me.key").returncode == 0
        assert mesh.cli("install", f"{out}/small-1.1.0.spk", "--yes").returncode == 0
        assert installed_version(mesh) == "1.1.0"
        row = json.loads(mesh.cli("status", "small", "--json").stdout)["plugins"][0]
        assert (row["package"]["state"], row["package"]["signer"]) == ("valid", "me")
        assert mesh.cli("remove", "small").returncode == 0
        assert mesh.plugin("small") == {}
        assert mesh.cli("install", "small", "--yes").returncode == 0
        assert installed_version(mesh) == "1.1.0"
        assert mesh.cli("remove", "small", "--purge", "--yes").returncode == 0
        assert traces(mesh) == []
        assert not (mesh.home / "data" / "small").exists()
        assert mesh.stop() == 0, mesh.text()
        entries = [(target, result, detail.split(",")[0]) for target, result, detail in audited(mesh, "install")]
        assert entries == [
            ("small", "done", "1.0.0"),
            ("small", "done", "1.1.0 in the place of 1.0.0"),
            ("small", "done", "1.1.0"),
        ]
        assert audited(mesh, "remove") == [("small", "done", ""), ("small", "done", "with its data")]

    def test_what_a_package_asks_for_is_shown_and_nothing_happens_without_a_yes(self, mesh: Mesh, maker: Maker) -> None:
        wishes = "requires: ['logger>=1.0']\nservices: [version]\nenv: {COLOUR: blue}\nlimits: {memory: 1G}\n"
        file = maker.file("small", "1.0.0", manifest=wishes)
        asked = mesh.cli("install", str(file))
        assert asked.returncode == 1
        assert "nobody is there to ask: say --yes" in asked.stderr
        assert "requires        logger>=1.0" in asked.stdout
        assert "serves          version" in asked.stdout
        assert 'environment     {"COLOUR": "blue"}' in asked.stdout
        assert 'limits          {"memory": "1G"}' in asked.stdout
        assert 'sandbox         {"mode": "best-effort"}' in asked.stdout
        assert traces(mesh) == []

    def test_without_a_running_broker_a_package_waits_for_its_start(self, mesh: Mesh, maker: Maker) -> None:
        done = mesh.cli("install", str(maker.file("small", "1.0.0")), "--yes")
        assert "it is started with the broker" in done.stdout, done.stderr
        mesh.run()
        mesh.wait_for("small")
        assert installed_version(mesh) == "1.0.0"
        assert mesh.stop() == 0
        assert mesh.cli("remove", "small").returncode == 0
        mesh.run()
        assert mesh.plugin("small") == {}


def changed(data: bytes, name: str, content: bytes) -> bytes:
    archive = open_archive(data)
    entries = {each: b"".join(archive.chunks(entry)) for each, entry in archive.entries.items()}
    return write_zip({**entries, name: content}.items())


def slipping(maker: Maker) -> bytes:
    evil = {**FILES_OF_SMALL, "../../../../evil": b"evil"}
    return package_of(evil)


def linked(maker: Maker) -> bytes:
    files = [Raw(f"files/{name}".encode(), content) for name, content in FILES_OF_SMALL.items()]
    link = Raw(b"files/link", b"/etc/passwd", stat.S_IFLNK | 0o777)
    listed = manifest_of({**FILES_OF_SMALL, "link": b"/etc/passwd"})
    return raw_zip(Raw(b"MANIFEST.json", listed), *files, link)


def bomb(maker: Maker) -> bytes:
    files = {**FILES_OF_SMALL, "bomb": bytes(100_000_000)}
    return raw_zip(
        Raw(b"MANIFEST.json", manifest_of(files)), *(Raw(f"files/{n}".encode(), c) for n, c in files.items())
    )


def lying_bomb(maker: Maker) -> bytes:
    files = {**FILES_OF_SMALL, "bomb": bytes(1000)}
    entries = [Raw(f"files/{name}".encode(), content) for name, content in files.items()]
    entries[-1] = Raw(b"files/bomb", bytes(100_000_000), size=1000)
    return raw_zip(Raw(b"MANIFEST.json", manifest_of(files)), *entries)


def expired(maker: Maker) -> bytes:
    folder = maker.folder("small", "1.0.0")
    yesterday = datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)
    return add_signature(build(folder, "small", Version("1.0.0"), expires=yesterday), maker.key)


def for_somebody_else(maker: Maker) -> bytes:
    _, public = make_recipient_pair(maker.place / "other.key")
    return maker.package("small", "1.0.0", recipient=public)


REFUSED: dict[str, tuple[Callable[[Maker], bytes], str]] = {
    "half written": (
        lambda maker: maker.package("small", "1.0.0")[:400],
        "truncated: its end is missing after 400 bytes",
    ),
    "empty": (lambda maker: b"", "truncated: the file is empty"),
    "truncated": (lambda maker: maker.package("small", "1.0.0")[:-1], "truncated: its end is missing"),
    "tampered": (
        lambda maker: changed(maker.package("small", "1.0.0"), "files/main.py", b"evil"),
        "modified: 'main.py' has 4 bytes, its manifest says",
    ),
    "unsigned": (
        lambda maker: build(maker.folder("small", "1.0.0"), "small", Version("1.0.0")),
        "unsigned: nobody has signed it",
    ),
    "unknown key": (
        lambda maker: Maker(maker.place / "stranger", "stranger").package("small", "1.0.0"),
        "unknown key: it is signed with the key",
    ),
    "wrongly encrypted": (for_somebody_else, "wrong recipient: it is encrypted to the key"),
    "expired": (expired, "expired: it expired at"),
    "zip-slip": (slipping, "unsafe: the file name '../../../../evil' leads out of the package"),
    "symlink": (linked, "unsafe: 'files/link' is a symbolic link"),
    "bomb": (bomb, "more than 200 to one: a bomb"),
    "lying bomb": (lying_bomb, "more than the 1000 bytes that it declares: a bomb"),
    "no package": (lambda maker: b"#!/bin/sh\n" * 100, "malformed: it is not a package"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_bad_package_is_refused_with_the_reason_and_leaves_nothing(mesh: Mesh, maker: Maker, kind: str) -> None:
    make, text = REFUSED[kind]
    data = make(maker)
    file = maker.place / "small-1.0.0.spk"
    file.write_bytes(data)
    # A broker that has a key, so that whose package it is can be told.
    make_recipient_pair(mesh.home / "keys" / "recipient.key")
    refused = mesh.cli("install", str(file), "--yes")
    assert refused.returncode == 1
    assert text in refused.stderr
    assert traces(mesh) == []
    mesh.run()
    with pytest.raises(CallError, match=re.escape(text.partition(": ")[2])):
        mesh.ask("$broker.install", file=str(file))
    assert traces(mesh) == []
    dropped = mesh.home / "plugins" / "small-1.0.0.spk"
    dropped.write_bytes(data)
    mesh.cli("reload-config")
    assert [
        each for each in mesh.status()["broker"]["warnings"] if each.startswith("small-1.0.0.spk: ") and text in each
    ]
    assert mesh.plugin("small") == {}
    # It stays where its owner put it, and there is nothing else.
    assert traces(mesh) == ["plugins/small-1.0.0.spk"]
    assert not list(mesh.home.parent.rglob("evil"))
    dropped.unlink()
    mesh.ask("$broker.reload_config")
    assert not mesh.status()["broker"]["warnings"]
    assert mesh.stop() == 0, mesh.text()
    assert [(target, result) for target, result, _ in audited(mesh, "install")] == [("small", "refused")] * 2
    assert all(text in detail for _, _, detail in audited(mesh, "install"))


class TestInstalling:
    def test_a_package_can_be_for_this_broker_only(self, mesh: Mesh, maker: Maker) -> None:
        made = mesh.cli("package", "keygen", "--recipient")
        assert made.returncode == 0, made.stderr
        data = maker.package("small", "1.0.0", recipient=mesh.home / "keys" / "recipient.pub")
        assert b"plugin_sdk" not in data
        file = maker.place / "small-1.0.0.spk"
        file.write_bytes(data)
        mesh.run()
        assert mesh.cli("install", str(file), "--yes").returncode == 0
        assert installed_version(mesh) == "1.0.0"

    def test_an_unsigned_package_runs_when_the_operator_names_the_plugin(self, mesh: Mesh, maker: Maker) -> None:
        data = build(maker.folder("small", "1.0.0"), "small", Version("1.0.0"))
        mesh.run()
        (mesh.home / "plugins" / "small-1.0.0.spk").write_bytes(data)
        mesh.ask("$broker.reload_config")
        assert mesh.plugin("small") == {}
        (mesh.home / "broker.toml").write_text('[plugin_manager]\nallow_unsigned = ["small"]\n')
        report = mesh.cli("reload-config")
        assert "plugin_manager.allow_unsigned: applied (none → small)" in report.stdout
        mesh.wait_for("small")
        assert mesh.plugin("small")["package"]["state"] == "unsigned"
        (mesh.home / "broker.toml").unlink()
        mesh.ask("$broker.reload_config")
        assert mesh.plugin("small") == {}

    def test_a_version_cannot_be_two_things(self, mesh: Mesh, maker: Maker) -> None:
        mesh.run()
        file = maker.file("small", "1.0.0")
        assert mesh.cli("install", str(file), "--yes").returncode == 0
        assert mesh.cli("install", str(file), "--yes").returncode == 0
        pid = mesh.plugin("small")["pid"]
        other = Maker(maker.place / "again", "again").trusted_by(mesh).file("small", "1.0.0", "pass")
        refused = mesh.cli("install", str(other), "--yes")
        assert "small 1.0.0 is installed with another content" in refused.stderr
        assert "give what has changed a new version" in refused.stderr
        assert mesh.plugin("small")["pid"] == pid

    def test_an_older_version_comes_back_only_when_that_is_meant(self, mesh: Mesh, maker: Maker) -> None:
        mesh.run()
        old, new = maker.file("small", "1.9.0"), maker.file("small", "1.10.0")
        assert mesh.cli("install", str(new), "--yes").returncode == 0
        refused = mesh.cli("install", str(old), "--yes")
        assert "small 1.10.0 is installed, which is newer than 1.9.0: --downgrade replaces it" in refused.stderr
        assert installed_version(mesh) == "1.10.0"
        assert mesh.cli("install", str(old), "--yes", "--downgrade").returncode == 0
        assert installed_version(mesh) == "1.9.0"

    def test_a_new_version_that_does_not_come_up_leaves_the_old_one_in_force(self, mesh: Mesh, maker: Maker) -> None:
        mesh.run()
        assert mesh.cli("install", str(maker.file("small", "1.0.0")), "--yes").returncode == 0
        before = traces(mesh)
        refused = mesh.cli("install", str(maker.file("small", "2.0.0", DIES)), "--yes", timeout=60)
        assert refused.returncode == 1
        assert "was not upgraded to 2.0.0, 1.0.0 goes on" in refused.stderr
        assert installed_version(mesh) == "1.0.0"
        assert [trace for trace in traces(mesh) if not trace.endswith("quarantine.json")] == before

    def test_what_its_plugin_yaml_says_must_be_what_was_signed(self, mesh: Mesh, maker: Maker) -> None:
        folder = maker.folder("small", "1.0.0")
        file = maker.place / "other-2.0.0.spk"
        file.write_bytes(add_signature(build(folder, "other", Version("2.0.0")), maker.key))
        mesh.run()
        with pytest.raises(CallError, match=r"its plugin\.yaml is of small 1\.0\.0, its manifest of other 2\.0\.0"):
            mesh.ask("$broker.install", file=str(file))
        assert traces(mesh) == []

    def test_a_package_that_was_changed_after_it_was_agreed_to_is_not_installed(self, mesh: Mesh, maker: Maker) -> None:
        mesh.run()
        with pytest.raises(CallError, match="the file is not the one any more that was agreed to"):
            mesh.ask("$broker.install", file=str(maker.file("small", "1.0.0")), digest="0" * 64)
        assert traces(mesh) == []

    def test_a_key_that_is_not_trusted_any_more_stops_what_it_signed(self, mesh: Mesh, maker: Maker) -> None:
        mesh.run()
        assert mesh.cli("install", str(maker.file("small", "1.0.0")), "--yes").returncode == 0
        assert mesh.cli("package", "untrust", "acme").returncode == 0
        mesh.ask("$broker.reload_config")
        assert mesh.plugin("small") == {}
        assert any("unknown key" in warning for warning in mesh.status()["broker"]["warnings"])
        assert mesh.cli("package", "trust", str(maker.public)).returncode == 0
        mesh.ask("$broker.reload_config")
        mesh.wait_for("small")

    def test_a_plugin_folder_of_the_same_name_is_in_the_way(self, mesh: Mesh, maker: Maker) -> None:
        mesh.add_plugin("small")
        mesh.run()
        refused = mesh.cli("install", str(maker.file("small", "1.0.0")), "--yes")
        assert "is a plugin of the same name: move that folder away first" in refused.stderr
        assert mesh.cli("remove", "small").returncode == 1
        assert mesh.plugin("small")["state"] == "running"


class TestCrashes:
    def test_kill_9_in_the_middle_of_an_installation_leaves_nothing_half(self, mesh: Mesh, maker: Maker) -> None:
        mesh.run()
        assert mesh.cli("install", str(maker.file("small", "1.0.0")), "--yes").returncode == 0
        before = traces(mesh)
        folder = maker.folder("small", "2.0.0")
        for number in range(400):
            (folder / f"blob{number}").write_bytes(os.urandom(50_000))
        file = maker.place / "small-2.0.0.spk"
        file.write_bytes(add_signature(build(folder, "small", Version("2.0.0")), maker.key))
        installing = mesh.start_cli("install", str(file), "--yes")
        eventually(lambda: list((mesh.home / "installed" / ".staging").glob("*/files/blob1*")), 20)
        mesh.stop(signal.SIGKILL)
        installing.communicate(timeout=30)
        mesh.run()
        mesh.wait_for("small")
        assert installed_version(mesh) == "1.0.0"
        eventually(lambda: traces(mesh) == before, 5, f"{traces(mesh)} is {before}")

    def test_files_that_were_changed_after_the_installation_do_not_run(self, mesh: Mesh, maker: Maker) -> None:
        mesh.cli("install", str(maker.file("small", "1.0.0")), "--yes")
        mesh.run()
        mesh.wait_for("small")
        assert mesh.stop() == 0
        main = next((mesh.home / "installed" / "small").glob("*/main.py"))
        main.chmod(0o600)
        main.write_text("raise SystemExit('evil')")
        mesh.run()
        mesh.wait_for("small")
        assert installed_version(mesh) == "1.0.0"
        assert "package small is unpacked anew: main.py was changed after it was installed" in mesh.text()

    def test_a_place_that_cannot_be_written_is_named(self, mesh: Mesh, maker: Maker) -> None:
        mesh.run()
        eventually((mesh.home / "installed" / ".staging").is_dir)
        shutil.rmtree(mesh.home / "installed" / ".staging")
        (mesh.home / "installed" / ".staging").write_text("in the way")
        refused = mesh.cli("install", str(maker.file("small", "1.0.0")), "--yes")
        assert refused.returncode == 1
        assert "cannot write below" in refused.stderr
        assert mesh.plugin("small") == {}


@pytest.mark.skipif(not landlock.version(), reason="this kernel has no Landlock")
def test_what_came_as_a_package_is_in_a_sandbox_unless_the_operator_says_otherwise(mesh: Mesh, maker: Maker) -> None:
    mesh.run()
    assert mesh.cli("install", str(maker.file("small", "1.0.0", CURIOUS)), "--yes").returncode == 0
    key = json.dumps({"path": str(mesh.home / "keys" / "client.key")})
    refused = mesh.cli("call", "small.read", key)
    assert (refused.returncode, "Permission denied" in refused.stderr) == (1, True)
    assert mesh.cli("call", "small.save").stdout == '"kept"\n'
    (mesh.home / "config" / "small.yaml").write_text("sandbox: {mode: off}\n")
    assert mesh.cli("reload-config").returncode == 0
    mesh.wait_for("small")
    eventually(lambda: mesh.cli("call", "small.read", key).returncode == 0, 15, mesh.text())
