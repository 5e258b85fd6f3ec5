"""What pip installs is the whole product: code, demo plugins, migrations, test vectors."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("broker", "plugin_sdk", "services", "migrations")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.Path:
    """A wheel built from a copy, since setuptools leaves its intermediate files in the tree that it builds."""
    tree = tmp_path_factory.mktemp("tree")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tree / package, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("setup.py", "setup.cfg", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, tree)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--use-pep517",
        "-w",
        tree,
        tree,
    ]
    subprocess.run(list(map(str, command)), capture_output=True, timeout=120, check=True)
    (built,) = tree.glob("*.whl")
    return zipfile.Path(built)


def installed_as(path: Path) -> str:
    top, *rest = path.relative_to(ROOT).parts
    return "/".join([f"broker/{top}" if top in ("services", "migrations") else top, *rest])


def test_every_file_of_the_four_packages_is_in_the_wheel(wheel: zipfile.Path) -> None:
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file()]
    expected = {installed_as(path) for path in files if "__pycache__" not in path.parts}
    missing = expected - set(wheel.root.namelist())
    assert not missing


def test_tests_and_tools_stay_at_home(wheel: zipfile.Path) -> None:
    tops = {name.partition("/")[0] for name in wheel.root.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"broker", "plugin_sdk"}


def test_an_editable_install_finds_the_moved_packages_too() -> None:
    code = "import broker.services, broker.migrations as m; print(broker.services.__path__[0], m.__path__[0])"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True, cwd="/"
    )
    services, migrations = map(Path, answer.stdout.split())
    assert (services.resolve(), migrations.resolve()) == (ROOT / "services", ROOT / "migrations")
