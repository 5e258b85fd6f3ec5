"""A broker that watches its plugin folder: what is put there runs, what is taken away does not (PLG-7)."""

import os
import shutil
import time
from pathlib import Path

import pytest

from tests.e2e.mesh import SMALL_PLUGIN, Mesh, eventually
from tests.e2e.packages import Maker, audited
from tests.e2e.test_packages import DIES, installed_version


@pytest.fixture
def maker(mesh: Mesh) -> Maker:
    """A trusted one; the broker runs, and watches."""
    made = Maker(mesh.home.parent / "maker").trusted_by(mesh)
    (mesh.home / "broker.toml").write_text("[plugin_manager]\nenable_hot_reload = true\n")
    (mesh.home / "plugins").mkdir(exist_ok=True)
    mesh.run()
    return made


def put(mesh: Mesh, file: Path) -> Path:
    """Copies as most programs do: beside first, then renamed."""
    draft = mesh.home / "plugins" / f".{file.name}.part"
    shutil.copy(file, draft)
    return draft.rename(mesh.home / "plugins" / file.name)


def gone(mesh: Mesh, name: str) -> None:
    eventually(lambda: mesh.plugin(name) == {}, 15, f"{name} is gone; log: {mesh.text()[-3000:]}")


def test_a_package_is_loaded_replaced_and_unloaded_as_its_file_is(mesh: Mesh, maker: Maker) -> None:
    first = put(mesh, maker.file("small", "1.0.0"))
    mesh.wait_for("small")
    assert installed_version(mesh) == "1.0.0"
    put(mesh, maker.file("small", "1.1.0"))
    eventually(lambda: mesh.plugin("small").get("version") == "1.1.0", 15, mesh.text())
    mesh.wait_for("small")
    assert installed_version(mesh) == "1.1.0"
    first.unlink()
    (mesh.home / "plugins" / "small-1.1.0.spk").unlink()
    gone(mesh, "small")
    assert mesh.stop() == 0, mesh.text()
    assert [(target, result) for target, result, _ in audited(mesh, "install")] == [("small", "done")] * 2
    assert audited(mesh, "remove") == [("small", "done", "its package file is gone")]


def test_a_package_that_is_copied_slowly_is_loaded_when_it_is_whole(mesh: Mesh, maker: Maker) -> None:
    data = maker.file("small", "1.0.0").read_bytes()
    with (mesh.home / "plugins" / "small-1.0.0.spk").open("wb", buffering=0) as file:
        for start in range(0, len(data), len(data) // 8 + 1):
            file.write(data[start : start + len(data) // 8 + 1])
            # No condition to wait for: that it takes its time is what this copy is for.
            time.sleep(0.25)
            assert mesh.plugin("small") == {}
    mesh.wait_for("small")
    assert installed_version(mesh) == "1.0.0"


def test_a_copy_that_stalls_is_refused_as_truncated_and_loaded_when_it_goes_on(mesh: Mesh, maker: Maker) -> None:
    data = maker.file("small", "1.0.0").read_bytes()
    with (mesh.home / "plugins" / "small-1.0.0.spk").open("wb", buffering=0) as file:
        file.write(data[:500])
        refused = "small-1.0.0.spk: truncated: its end is missing after 500 bytes: it is still being written"
        eventually(lambda: any(each.startswith(refused) for each in mesh.status()["broker"]["warnings"]), 15)
        assert mesh.plugin("small") == {}
        file.write(data[500:])
    mesh.wait_for("small")
    assert mesh.status()["broker"]["warnings"] == []


def test_packages_that_are_copied_together_start_in_the_order_of_their_needs(mesh: Mesh, maker: Maker) -> None:
    files = [maker.file("a", "1.0.0", manifest="requires: [b]\n"), maker.file("b", "1.0.0", manifest="requires: [c]\n")]
    for file in [*files, maker.file("c", "1.0.0")]:
        put(mesh, file)
    for name in "abc":
        mesh.wait_for(name)
    started = [line.split("plugin ")[1][0] for line in mesh.text().splitlines() if " is registered and runs: " in line]
    assert started == ["c", "b", "a"]


def test_a_new_version_that_does_not_come_up_leaves_the_old_one_running(mesh: Mesh, maker: Maker) -> None:
    put(mesh, maker.file("small", "1.0.0"))
    mesh.wait_for("small")
    put(mesh, maker.file("small", "2.0.0", DIES))
    eventually(lambda: any("small-2.0.0.spk" in each for each in mesh.status()["broker"]["warnings"]), 40, mesh.text())
    mesh.wait_for("small")
    assert installed_version(mesh) == "1.0.0"
    assert mesh.stop() == 0
    # Nor does the next broker try it again by itself.
    mesh.run()
    mesh.wait_for("small")
    assert installed_version(mesh) == "1.0.0"
    assert any("did not come up before" in each for each in mesh.status()["broker"]["warnings"])


def test_a_bad_file_in_the_place_of_a_good_one_changes_nothing_that_runs(mesh: Mesh, maker: Maker) -> None:
    file = put(mesh, maker.file("small", "1.0.0"))
    pid = mesh.wait_for("small")["pid"]
    draft = mesh.home / "plugins" / "draft"
    draft.write_bytes(b"garbage")
    draft.rename(file)
    eventually(lambda: any("malformed" in each for each in mesh.status()["broker"]["warnings"]), 15)
    assert mesh.plugin("small")["pid"] == pid


def test_a_plugin_folder_is_followed_in_all_that_happens_to_it(mesh: Mesh, maker: Maker) -> None:
    folder = mesh.add_plugin("folder", '@plugin.service("version")\nasync def version() -> str:\n    return "1"\n')
    first = mesh.wait_for("folder")["pid"]
    other = '@plugin.service("version")\nasync def version() -> str:\n    return "2"\n'
    (folder / "main.py").write_text(SMALL_PLUGIN.format(name="folder", body=other))
    eventually(lambda: mesh.plugin("folder").get("pid") not in (first, None), 15, mesh.text())
    mesh.wait_for("folder")
    assert installed_version(mesh, "folder") == "2"
    second = mesh.plugin("folder")["pid"]
    (folder / "plugin.log").write_text("what tools write changes nothing")
    (mesh.home / "plugins" / "README.txt").write_text("nor does this")
    put(mesh, maker.file("small", "1.0.0"))
    mesh.wait_for("small")
    assert mesh.plugin("folder")["pid"] == second
    shutil.rmtree(folder)
    gone(mesh, "folder")


def test_a_plugin_that_was_stopped_is_not_started_by_a_change_of_its_code(mesh: Mesh, maker: Maker) -> None:
    folder = mesh.add_plugin("folder")
    mesh.wait_for("folder")
    eventually(lambda: "folder added" in mesh.text(), 15)
    assert mesh.cli("stop", "folder").returncode == 0
    os.utime(folder / "main.py")
    eventually(lambda: "folder changed" in mesh.text(), 15)
    put(mesh, maker.file("small", "1.0.0"))
    mesh.wait_for("small")
    assert mesh.plugin("folder")["state"] == "stopped"


def test_without_the_setting_nothing_is_watched(mesh: Mesh) -> None:
    made = Maker(mesh.home.parent / "maker").trusted_by(mesh)
    mesh.run()
    put(mesh, made.file("small", "1.0.0"))
    assert mesh.process is not None
    assert "watchfiles" not in Path(f"/proc/{mesh.process.pid}/maps").read_text()
    assert mesh.plugin("small") == {}
    mesh.cli("reload-config")
    mesh.wait_for("small")
