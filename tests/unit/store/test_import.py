"""Importing the store costs the broker nothing that it does not need to start."""

import subprocess
import sys

HEAVY = ("sqlalchemy", "alembic", "pymysql", "tenacity", "sqlite3")


def test_importing_the_store_imports_no_library() -> None:
    code = f"import sys, broker.store; print([name for name in {HEAVY} if name in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert answer.stdout == "[]\n"


def test_a_running_store_has_not_imported_alembic(tmp_path: object) -> None:
    code = f"""
import asyncio, sys
from broker.store import Store
store = Store("sqlite:///{tmp_path}/broker.db", node="here")
store.start()
store.plugins.update_registration_status("hello", 2)
assert asyncio.run(store.flush(20)) == 0, store.state()
assert asyncio.run(store.plugins.get("hello")).register_status == 2
assert store.close(5) == 0
print([name for name in ("alembic", "sqlalchemy.orm", "mako") if name in sys.modules])
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (answer.stdout, answer.stderr) == ("[]\n", "")
