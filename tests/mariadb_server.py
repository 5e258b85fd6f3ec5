"""A private MariaDB server: its own folder, socket and port, nothing of the machine touched."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pymysql

USER = "mesh"
# What an URL must quote and a log must not show.
PASSWORD = "s3cr@t/:pass"

START_SECS = 20
_SHARES = (Path("/usr/share/mysql"), Path("/usr/share/mariadb"))
_SYSTEM_TABLES = ("*_system_tables.sql", "*_performance_tables.sql", "*_system_tables_data.sql")


class NoServer(Exception):
    """There is no MariaDB server on this machine; the text says how to get one."""


class Server:
    """One MariaDB server, which tests may kill, freeze and start again.

    Raises:
        NoServer: there is none to be started.
    """

    def __init__(self) -> None:
        self._program, share = _installed()
        # Not below pytest's folders: the path of a Unix socket has room for 107 bytes only.
        self.folder = Path(tempfile.mkdtemp(prefix="mariadb-"))
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._make_system_tables(share)

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        assert self._process is not None, "the server is not running"
        return self._process.pid

    def start(self) -> None:
        """Start the server and wait until it answers."""
        command = self._command(
            f"--socket={self.folder}/socket",
            f"--port={self.port}",
            "--bind-address=127.0.0.1",
            "--skip-name-resolve",
            # Only the process is ever killed, not the machine: nothing needs to be on the disk.
            "--innodb-flush-method=nosync",
            "--sync-frm=0",
        )
        if setpriv := shutil.which("setpriv"):
            command = [setpriv, "--pdeathsig", "KILL", *command]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        self._wait_ready()

    def create_user(self) -> None:
        """Make the user of `url`, who may do everything in databases called mesh_…"""
        self.run(
            f"CREATE USER {USER}@127.0.0.1 IDENTIFIED BY '{PASSWORD}'",
            f"GRANT ALL ON `mesh\\_%`.* TO {USER}@127.0.0.1",
        )

    def kill(self) -> None:
        """End the server with SIGKILL."""
        assert self._process is not None, "the server is not running"
        self._process.kill()
        self._process.wait()
        self._process = None

    def signal(self, number: int) -> bool:
        """Send a signal to the server; returns whether it runs."""
        if self._process is None:
            return False
        self._process.send_signal(number)
        return True

    def remove(self) -> None:
        """End the server if it runs, and delete its files."""
        if self._process is not None:
            self.kill()
        shutil.rmtree(self.folder)

    def ensure(self) -> None:
        """Start the server if a test has left it dead."""
        if self._process is None:
            self.start()

    def connect(self, database: str | None = None) -> "pymysql.Connection[Any]":
        """Connect as root."""
        return pymysql.connect(unix_socket=f"{self.folder}/socket", user="root", database=database)

    def run(self, *statements: str) -> Sequence[tuple[Any, ...]]:
        """Run `statements` as root and return the rows of the last one."""
        connection = self.connect()
        try:
            with connection.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)
                connection.commit()
                return list(cursor.fetchall())
        finally:
            connection.close()

    def url(self, database: str, *, user: str = USER, password: str = PASSWORD) -> str:
        """Return the SQLAlchemy URL of `database` on this server."""
        return f"mysql+pymysql://{user}:{quote(password, safe='')}@127.0.0.1:{self.port}/{database}"

    def _make_system_tables(self, share: Path) -> None:
        # What mariadb-install-db does, without the program: it is not in the package with the server.
        for name in ("data", "tmp"):
            (self.folder / name).mkdir()
        script = "CREATE DATABASE mysql;\nUSE mysql;\nSET @auth_root_socket = NULL;\n"
        for pattern in _SYSTEM_TABLES:
            script += next(iter(sorted(share.glob(pattern)))).read_text(encoding="utf-8")
        made = subprocess.run(
            self._command("--bootstrap"), input=script.encode(), capture_output=True, timeout=START_SECS, check=False
        )
        assert made.returncode == 0, made.stderr.decode()

    def _command(self, *options: str) -> list[str]:
        # A server that starts removes the temporary tables of all others in the same folder.
        folders = (f"--datadir={self.folder}/data", f"--tmpdir={self.folder}/tmp")
        common = ["--no-defaults", *folders, "--innodb-log-file-size=8M"]
        if os.geteuid() == 0:
            # The server refuses to run as root unless told so.
            common.append("--user=root")
        return [self._program, *common, "--innodb-buffer-pool-size=16M", *options]

    def _wait_ready(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_SECS
        while not self._answers():
            assert self._process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.02)

    def _answers(self) -> bool:
        # pymysql leaks its socket when it cannot connect, so the first look is a plain one.
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(f"{self.folder}/socket") != 0:
                return False
        self.run("SELECT 1")
        return True


def _installed() -> tuple[str, Path]:
    program = shutil.which("mariadbd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    share = next((share for share in _SHARES if any(share.glob(_SYSTEM_TABLES[0]))), None)
    if program is None or share is None:
        raise NoServer("no MariaDB server on this machine: install the package mariadb-server-core")
    return program, share


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port
