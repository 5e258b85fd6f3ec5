"""Who may import whom: the contracts of setup.cfg hold, and each of them would notice a breach."""

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def lint(tree: Path) -> subprocess.CompletedProcess[str]:
    command: list[str | Path] = [
        Path(sys.executable).with_name("lint-imports"),
        "--config",
        "setup.cfg",
        "--no-cache",
        "--no-logo",
    ]
    return subprocess.run(command, cwd=tree, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "setup.cfg", tmp_path)
    for package in ("broker", "plugin_sdk"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_the_contracts_hold() -> None:
    answer = lint(ROOT)
    assert answer.returncode == 0, answer.stdout


@pytest.mark.parametrize(
    ("module", "breach"),
    [
        ("broker/core/router.py", "import time"),
        ("broker/core/router.py", "import asyncio"),
        ("broker/core/router.py", "import broker.store"),
        ("plugin_sdk/wire/codec.py", "import os"),
        ("plugin_sdk/wire/codec.py", "import logging"),
        ("broker/supervisor/plan.py", "import broker.store"),
        ("broker/supervisor/plan.py", "import zmq"),
        ("broker/supervisor/plan.py", "import sqlalchemy"),
        ("broker/store/health.py", "import alembic"),
        ("broker/store/health.py", "import broker.config"),
        ("broker/store/health.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING: import broker.edge"),
        ("broker/store/health.py", "def later() -> None:\n    import plugin_sdk.client"),
        ("plugin_sdk/runner.py", "import broker"),
        ("plugin_sdk/runner.py", "import zmq"),
        ("plugin_sdk/wire/limits.py", "import plugin_sdk.wire.codec"),
        ("broker/control/graph.py", "import rich"),
        ("broker/telemetry/endpoint.py", "import prometheus_client"),
        ("broker/utils.py", "x = 1"),
    ],
)
def test_a_breach_is_noticed(tree: Path, module: str, breach: str) -> None:
    with (tree / module).open("a") as file:
        file.write(f"\n{breach}\n")
    assert lint(tree).returncode == 1


def test_no_folder_escapes_the_contracts() -> None:
    """The linter does not see modules in a folder without __init__.py."""
    folders = {path.parent for package in ("broker", "plugin_sdk") for path in (ROOT / package).rglob("*.py")}
    assert not [folder for folder in folders if not (folder / "__init__.py").exists()]


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_the_shipped_services_know_the_sdk_and_nothing_else_of_the_product() -> None:
    for path in (ROOT / "services").rglob("*.py"):
        foreign = {
            name for name in imports(path) if name.partition(".")[0] in ("broker", "tools", "tests", "migrations")
        }
        assert not foreign, path


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("plugin_sdk", ("broker", "sqlalchemy", "opentelemetry.sdk", "yaml", "psutil")),
        ("broker.core", ("sqlalchemy", "opentelemetry.sdk")),
        ("broker.store", ("sqlalchemy", "alembic")),
        ("broker.cli.main", ("asyncio", "msgspec", "zmq", "broker.daemon", "plugin_sdk")),
        ("broker.cli.run", ("sqlalchemy", "alembic", "opentelemetry.sdk", "rich")),
        ("broker.daemon", ("prometheus_client", "http.server", "rich", "psutil", "tomllib")),
        ("broker.store.database", ("alembic", "pymysql", "sqlalchemy.dialects.mysql")),
    ],
)
def test_an_import_costs_no_more_than_it_must(module: str, absent: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print([name for name in {absent} if name in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert answer.stdout == "[]\n"


def test_each_command_is_imported_only_when_it_is_given() -> None:
    code = "from broker.cli.main import main; main(['status', '--help'], standalone_mode=False)"
    listed = f"{code}; import sys; print(*(name for name in sys.modules if name.startswith('broker.cli.')))"
    answer = subprocess.run([sys.executable, "-c", listed], capture_output=True, text=True, timeout=30, check=True)
    modules = answer.stdout.splitlines()[-1].split()
    assert "broker.cli.status" in modules
    assert not {"broker.cli.run", "broker.cli.install", "broker.cli.top"} & set(modules)
