"""A mesh for tests of the supervisor: the ports as the daemon implements them, on real sockets to real processes."""

import asyncio
import json
import socket
import struct
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from broker.supervisor.errors import CommandError


class Link:
    """One registered process."""

    def __init__(self, plugin_id: str, pid: int, writer: asyncio.StreamWriter) -> None:
        self.plugin_id = plugin_id
        self.pid = pid
        self.writer = writer
        self.pending: dict[int, asyncio.Future[dict[str, Any]]] = {}


class LineMesh:
    """Admits processes by token and pid, sends commands, and tells of sessions that open and end.

    Args:
        opened: called for a process that came without a token.
        lost: called when a session has ended.
    """

    def __init__(self, path: Path, opened: Callable[[str, int], None], lost: Callable[[str, int, str], None]) -> None:
        self.endpoint = f"ipc://{path}"
        self.commands: list[tuple[str, str]] = []
        self.bodies: dict[tuple[str, str], Any] = {}
        self.admits = True
        self.standby: set[str] = set()
        self.switched: list[tuple[int | None, int | None]] = []
        self.on_expect: Callable[[], None] = lambda: None
        self._path = path
        self._opened = opened
        self._lost = lost
        self._numbers = count(1)
        self._expected: dict[str, tuple[str, int]] = {}
        self._sessions: dict[int, Link] = {}
        self._by_token: dict[str, int] = {}
        self._refusals: dict[str, list[str]] = {}
        self._news = asyncio.Condition()
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self._path)

    async def close(self) -> None:
        assert self._server
        self._server.close()
        for link in list(self._sessions.values()):
            link.writer.close()
        await self._server.wait_closed()

    def expect(
        self,
        plugin_id: str,
        token: str,
        pid: int,
        asked: object,
        *,
        mount: str = "",
        routed: bool = True,
        version: str = "",
    ) -> None:
        self._expected[token] = (plugin_id, pid)
        if not routed:
            self.standby.add(token)
        self._refusals[plugin_id] = []
        self.on_expect()

    def forget(self, token: str) -> None:
        self._expected.pop(token, None)

    async def registered(self, plugin_id: str, token: str) -> int:
        async with self._news:
            await self._news.wait_for(lambda: self._by_token.get(token) in self._sessions)
        return self._by_token[token]

    def switch(self, joining: int | None, leaving: int | None) -> None:
        self.switched.append((joining, leaving))
        self.standby = {token for token in self.standby if self._by_token.get(token) != joining}

    async def drained(self, session: int, timeout: float) -> bool:
        return session in self._sessions

    def refusals(self, plugin_id: str) -> list[str]:
        return self._refusals.get(plugin_id, [])

    def session_of(self, plugin_id: str) -> int | None:
        return next((number for number, link in self._sessions.items() if link.plugin_id == plugin_id), None)

    async def command(self, session: int, name: str, body: object, timeout: float) -> object:
        link = self._sessions.get(session)
        if link is None:
            raise CommandError("lost", f"session {session} is gone")
        self.commands.append((link.plugin_id, name))
        self.bodies[link.plugin_id, name] = body
        ref = next(self._numbers)
        link.pending[ref] = asyncio.get_running_loop().create_future()
        link.writer.write(json.dumps({"ref": ref, "command": name, "body": body}).encode() + b"\n")
        try:
            async with asyncio.timeout(timeout):
                answer = await link.pending[ref]
        except TimeoutError:
            raise CommandError("timeout", f"no answer to {name} within {timeout:g} s") from None
        if "code" in answer:
            raise CommandError(answer["code"], answer["text"])
        return answer["ok"]

    def pids(self) -> dict[str, int]:
        """The process behind each registered plugin."""
        return {link.plugin_id: link.pid for link in self._sessions.values()}

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection: socket.socket = writer.get_extra_info("socket")
        pid: int = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        hello = json.loads(await reader.readline())
        plugin_id, token = hello["register"], hello["token"]
        refusal = self._refusal(plugin_id, token, pid)
        if refusal:
            self._refusals.setdefault(plugin_id, []).append(refusal)
            writer.write(json.dumps({"refused": refusal}).encode() + b"\n")
            writer.close()
            return
        number, link = next(self._numbers), Link(plugin_id, pid, writer)
        await self._open(number, link, token)
        try:
            while line := await reader.readline():
                answer = json.loads(line)
                link.pending.pop(answer["ref"]).set_result(answer)
        except ConnectionError:
            pass
        finally:
            self._end(number, link)

    def _refusal(self, plugin_id: str, token: str | None, pid: int) -> str:
        if not self.admits:
            return "shutting_down: nobody is admitted"
        if token and self._expected.get(token) != (plugin_id, pid):
            return f"bad_token: process {pid} is not expected as {plugin_id}"
        if self.session_of(plugin_id) is not None and token and token not in self.standby:
            return f"duplicate_name: {plugin_id} is registered"
        return ""

    async def _open(self, number: int, link: Link, token: str | None) -> None:
        async with self._news:
            self._sessions[number] = link
            if token:
                self._by_token[token] = number
            else:
                self._opened(link.plugin_id, number)
            self._news.notify_all()

    def _end(self, number: int, link: Link) -> None:
        self._sessions.pop(number, None)
        for pending in link.pending.values():
            if not pending.done():
                pending.set_result({"code": "lost", "text": f"{link.plugin_id} is gone"})
        link.writer.close()
        self._lost(link.plugin_id, number, "lost: the connection was closed")
