"""The daemon: where all rooms meet. Its life reads as start, serve, stop."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import time
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

from broker import __version__, tracepoints
from broker.config import MIB, Config, load
from broker.control.lately import Incident, Lately
from broker.control.orders import who
from broker.control.packages import PackageOrders
from broker.control.services import Control
from broker.core import Router
from broker.core.grants import Permissions
from broker.core.notices import Notice, PeerMisbehaved, RegistrationRefused, SessionLost, SessionOpened, SlowConsumer
from broker.core.observer import Observed
from broker.core.snapshot import Snapshot
from broker.daemon import traces
from broker.daemon.announcing import Announcer, count_plugins
from broker.daemon.bulletin import Bulletin
from broker.daemon.denials import Denials
from broker.daemon.limits import LimitWatch
from broker.daemon.local import local_bus
from broker.daemon.logfeed import LogFeed
from broker.daemon.mesh import MeshPort
from broker.daemon.metering import Metering
from broker.daemon.packages import Packages, make_installer
from broker.daemon.records import Records
from broker.daemon.reload import Reloading, live_settings
from broker.daemon.stopping import Rooms, Stopping
from broker.edge.curve import new_pair
from broker.edge.descriptors import raise_limit
from broker.edge.selftest import unknown_key_is_refused
from broker.edge.server import AddressUnusable, CurveServer, Edge
from broker.home import CurvePair, Home, HomeError, HomeLock, prepare_socket
from broker.packages.installed import ACTIVE
from broker.shutdown.guard import EX_UNDONE, Guard
from broker.shutdown.phases import Shutdown
from broker.store import Store
from broker.supervisor.access import Access, Grants, read_grants
from broker.supervisor.cgroups import Groups
from broker.supervisor.confinement import ResourceLimits
from broker.supervisor.discovery import shipped
from broker.supervisor.document import BadDocument
from broker.supervisor.processes import stat
from broker.supervisor.supervisor import Supervisor
from broker.telemetry.usage import Measured
from plugin_sdk.wire.errors import BusError
from plugin_sdk.wire.limits import Limits

log = logging.getLogger("broker")


class Daemon:
    """One broker.

    Args:
        config: every setting.
        guard: hears the signals, and ends the process when the shutdown does not; whoever made it enters it.
        read: reads the settings anew for a reload; from the same file and the environment when not given.
        demo: also run the plugins that are shipped.
    """

    def __init__(
        self,
        config: Config,
        guard: Guard,
        read: Callable[[], Config] | None = None,
        *,
        demo: bool = False,
    ) -> None:
        self._config = config
        self._shutdown = config.shutdown
        self._home = Home(config.home)
        self._lock = HomeLock(self._home.path)
        self._stop = asyncio.Event()
        self._started_up = asyncio.Event()
        self._started = time.monotonic()
        self._warnings: list[str] = []
        self._lately = Lately(time.monotonic)
        self._router = _router(config, traces.set_up())
        self._edge = Edge(self._router, self._on_notices)
        self._store = Store(
            config.database.url.get_secret_value(),
            node=config.broker.node,
            queue_limit=config.database.queue_limit,
            audit_keep_days=config.database.audit_keep_days,
        )
        self._bus = local_bus(self._edge, __version__)
        self._grants = Grants()
        self._router.admission.set_grants(self._granted)
        self._mesh = MeshPort(self._router, self._bus, self._edge.wake, self._edge.until, self._granted)
        self._records = Records(self._store)
        self._denials = Denials(self._records.audit, time.monotonic, asyncio.get_running_loop().call_later)
        self._logfeed = LogFeed(self._bus.publish, self._router.listeners, time.monotonic)
        self._supervisor = self._make_supervisor([shipped()] if demo else [])
        self._packages = self._make_packages()
        self._tasks: set[asyncio.Task[None]] = set()
        self._limits = LimitWatch(self._supervisor.limiter, self._records.audit, self._own)
        self._bulletin = Bulletin(self._bus, self._own)
        rooms = Rooms(
            self._router,
            self._edge,
            self._bus,
            self._supervisor,
            self._store,
            self._records,
            self._denials,
            config.broker.node,
            config.bus.socket,
        )
        self._stopping = Stopping(rooms, self._tasks)
        self._control = Control(self._supervisor, self, config.bus.heartbeat_secs)
        self._metering = Metering(self._control.document, self._shutdown_figures)
        self._reloading = self._make_reloading(read or _reader(config))
        self._announcer = Announcer(os.environ, config.shutdown.watchdog, self._prove_progress, self._in_a_line)
        self._guard = guard
        self._guard.kill = self._supervisor.kill_all
        self._time_shutdown(config)
        self._grant_as(config)

    async def start(self) -> None:
        """Open the bus, then everything that uses it; raises HomeError when the home or an address is unusable."""
        with tracepoints.span("broker.start"):
            await self._open()

    async def _open(self) -> None:
        # Before anything else: a signal during the start must lead to an orderly stop, too.
        self._guard.attach(asyncio.get_running_loop(), self._on_stop_signal, self._on_hangup)
        self._home.prepare()
        self._lock.acquire()
        raise_limit()
        self._read_keys()
        try:
            await self._read_grants()
        except BadDocument as error:
            raise HomeError(str(error)) from None
        self._listen(prepare_socket(self._config.bus.socket))
        self._edge.start()
        await self._bus.open()
        if self._config.bus.tcp:
            await self._listen_tcp(self._config.bus.tcp)
        orders = PackageOrders(self._packages, who)
        for name, handler in {**self._control.handlers(), **orders.handlers()}.items():
            await self._bus.serve(name, handler)
        self._metering.configure(self._config)
        log.info("plugmesh %s serves %s, process %d", __version__, self._home.path, os.getpid())
        self._store.start()
        self._records.audit("broker", "start", self._config.broker.node, "done", f"process {os.getpid()}")
        self._announcer.begin(self._own(self._start_plugins()))
        self._started_up.set()

    async def serve(self) -> None:
        """Run until somebody asks to stop."""
        await self._stop.wait()

    async def stop(self) -> int:
        """Stop in order; returns the exit status."""
        shutdown = Shutdown(self._stopping.phases(), self._shutdown.timeout_secs)
        self._guard.unfinished = shutdown.unfinished
        self._announcer.stopping(self._guard.limit)
        self._guard.arm()
        self._packages.close()
        undone = await shutdown.run()
        if undone:
            self._supervisor.kill_all()
        self._lock.release()
        # Until here, so that a shutdown that takes too long can be seen.
        self._metering.close()
        self._stopping.tell_waiting()
        for text in undone:
            log.error("left undone: %s", text)
        log.info("stopped%s", "" if not undone else " with something left undone")
        self._announcer.close()
        return EX_UNDONE if undone else 0

    async def reload_config(self) -> dict[str, Any]:
        """Read the configuration anew and apply what can be applied; returns a report for JSON."""
        await self._started_up.wait()
        with self._announcer.reload() as take_note:
            report = await self._reloading.run()
            take_note(f"configuration refused: {report.problems[0]}" if report.problems else "")
        return report.as_dict()

    def router(self) -> Snapshot:
        """The bus at this moment."""
        return self._router.snapshot(time.monotonic())

    def observe(self, secs: float) -> None:
        """Learn for so long who publishes what and who calls whom."""
        self._router.observe(time.monotonic(), secs)

    def observed(self) -> Observed:
        """What was learnt, and since when."""
        return self._router.observed(time.monotonic())

    async def usage(self, pids: Collection[int]) -> Measured:
        """What the processes of the broker and of plugins use."""
        return await self._metering.usage(pids)

    def broker(self) -> Mapping[str, Any]:
        """What `broker status` says of the broker itself."""
        store = self._store.state()
        database = {
            "status": store.status,
            "reason": store.reason,
            "pending": store.pending,
            "written": store.written,
            "dropped": store.dropped,
        }
        return {
            "version": __version__,
            "node": self._config.broker.node,
            "pid": os.getpid(),
            "home": str(self._home.path),
            "uptime_secs": time.monotonic() - self._started,
            "database": database,
            "tcp_keys_refused": self._edge.keys_refused,
            "warnings": [
                *self._warnings,
                *self._metering.warnings,
                *self._supervisor.warnings,
                *self._packages.warnings(),
            ],
        }

    def packages(self) -> Mapping[str, Mapping[str, Any]]:
        """What was installed as a package, by plugin id."""
        return self._packages.facts()

    def refused_packages(self, name: str) -> Sequence[str]:
        """Why package files of a plugin in the plugin folder are not taken."""
        return self._packages.refused(name)

    def read_keys(self) -> int:
        """Read the keys in the home; returns how many there are, raises BusError when one of them is broken."""
        try:
            return self._read_keys()
        except HomeError as error:
            raise BusError("failed", f"the keys stay as they were: {error}") from None

    def lately(self, name: str) -> list[Incident]:
        """What was refused of late to whoever goes by this name."""
        return self._lately.of(name)

    def process_state(self, pid: int) -> str:
        """The state of a process as the kernel has it; empty when there is none."""
        found = stat(pid)
        return found.state.decode() if found else ""

    async def ask_health(self, session: int) -> Mapping[str, Any]:
        """What a plugin says of itself right now."""
        return await self._mesh.ask_health(session)

    def plugin_dir(self) -> str:
        """Where plugin folders are put."""
        return str(self._config.plugin_manager.plugin_dir)

    async def read_audit(self, limit: int, target: str | None) -> list[dict[str, str]]:
        """The newest entries of the audit log, oldest first."""
        return await self._records.newest_audits(limit, target)

    def audit(self, actor: str, action: str, target: str, result: str, detail: str = "") -> None:
        """Write into the audit log."""
        self._records.audit(actor, action, target, result, detail)

    def _read_keys(self) -> int:
        keys, clients = self._home.keys(), self._home.tcp_clients()
        self._router.admission.set_keys(keys)
        self._edge.set_tcp_clients(clients)
        return len(keys) + len(clients)

    def _make_supervisor(self, further: list[Path]) -> Supervisor:
        """The supervisor of the plugins in the operator's folder and in `further` ones."""
        settings = self._config.plugin_manager
        return Supervisor(
            self._mesh,
            self._records,
            plugin_dirs=[settings.plugin_dir, self._home.installed / ACTIVE, *further],
            config_dir=settings.config_dir,
            data_dir=settings.data_dir,
            log_dir=self._home.logs,
            home=self._home.path,
            endpoint=f"ipc://{self._config.bus.socket}",
            max_concurrency=settings.max_concurrency,
            timeout=settings.timeout,
            most=ResourceLimits(memory=settings.max_memory * MIB or None, cpu=settings.max_cpu / 100 or None),
            sandbox="best-effort" if settings.enable_sandbox else "off",
            groups=Groups(),
            passed_on=self._logfeed.take,
        )

    async def _start_plugins(self) -> None:
        await self._packages.begin()
        settings = self._config.plugin_manager
        if settings.enable_hot_reload:
            self._packages.watch(settings.watch_interval)
        await self._supervisor.start_all()
        await self._packages.follow()

    def _make_reloading(self, read: Callable[[], Config]) -> Reloading:
        live = live_settings(
            self._supervisor.set_pace,
            self._time_shutdown,
            self._grant_as,
            self._packages.admit,
            self._metering.configure,
        )
        return Reloading(self._config, read, live, self._read_grants, self._packages.rescan)

    def _make_packages(self) -> Packages:
        supervisor = self._supervisor

        async def upgrade(name: str, folder: Path) -> None:
            # Whether it may be tried again is decided by its package.
            await supervisor.upgrade(name, folder, force=True, remember=False)

        return Packages(
            make_installer(self._config, self._home),
            self._config.plugin_manager.data_dir,
            supervisor.reload,
            upgrade,
            self._renew,
            self._records.audit,
        )

    async def _renew(self, changed: Mapping[str, float]) -> None:
        """Start plugins anew that run, or failed to, with code from before it was changed; stopped ones stay so."""
        now = time.time()
        stale = [
            view.name
            for view in self._supervisor.snapshot()
            if view.desired == "running" and changed.get(view.name, 0.0) > now - (view.run_age or 0.0)
        ]
        if stale:
            await self._supervisor.renew(stale)

    def _listen(self, endpoint: str) -> None:
        try:
            self._edge.bind_ipc(endpoint)
        except AddressUnusable as error:
            raise HomeError(f"{error}; choose another with bus.socket or --home") from None

    async def _listen_tcp(self, endpoint: str) -> None:
        pair = self._home.server_pair()
        if pair is None:
            pair = CurvePair(*new_pair())
            self._home.save_server_pair(pair)
        keys = CurveServer(pair.public.encode(), pair.secret.encode())
        try:
            bound = self._edge.bind_tcp(endpoint, keys, self._home.tcp_clients())
        except AddressUnusable as error:
            raise HomeError(f"{error}; choose another with bus.tcp") from None
        # CURVE without a working ZAP handler admits any key, so this is proven at every start.
        if not await asyncio.to_thread(unknown_key_is_refused, bound, keys.public):
            raise HomeError(f"{bound} did not refuse an unknown key: not serving TCP like that")
        log.info("listening on %s for %d known keys", bound, len(self._home.tcp_clients()))

    def _granted(self, plugin_id: str, asked: Access | None = None) -> Permissions:
        return self._grants.of(plugin_id, asked, as_declared=self._as_declared)

    def _grant_as(self, config: Config) -> None:
        self._as_declared = config.plugin_manager.permissions == "declared"

    async def _read_grants(self) -> bool:
        """Read the operator's grants; returns whether they have changed."""
        before, self._grants = self._grants, await asyncio.to_thread(read_grants, self._home.path)
        return self._grants != before

    def _on_stop_signal(self, name: str) -> None:
        log.info("%s: stopping", name)
        self._stop.set()

    def _on_hangup(self) -> None:
        log.info("SIGHUP: reloading the configuration")
        self._own(self._reload())

    async def _reload(self) -> None:
        try:
            await self.reload_config()
        except Exception:
            # A defect of ours must not keep silent: nobody waits for the result of this.
            log.exception("reloading the configuration failed")

    def _shutdown_figures(self) -> dict[str, float]:
        return {"shutdown_secs": self._guard.armed_secs(), "shutdown_limit_secs": self._shutdown.timeout_secs}

    def _time_shutdown(self, config: Config) -> None:
        self._shutdown = settings = config.shutdown
        self._guard.limit = settings.timeout_secs + settings.force_delay_secs if settings.force_quit else None
        self._guard.hangup_stops = settings.sighup == "stop"

    async def _prove_progress(self) -> None:
        """Return once a request has gone through the router, and its reply back."""
        await self._bus.call("$broker.ping")

    def _in_a_line(self) -> str:
        if self._stop.is_set():
            return f"stopping: {self._guard.unfinished()}".removesuffix(": ")
        return count_plugins(self._supervisor.snapshot())

    def _own(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run work that ends with the broker at the latest."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _on_notices(self, notices: list[Notice]) -> None:
        for notice in notices:
            match notice:
                case SessionOpened():
                    self._on_opened(notice)
                case SessionLost():
                    self._on_lost(notice)
                case RegistrationRefused():
                    self._mesh.on_refused(notice)
                    self._lately.note(notice.name, "registration", notice.code, notice.text, notice.pid)
                    self._denials.refused(notice)
                case PeerMisbehaved():
                    if notice.code == "denied":
                        self._lately.note(notice.name, "denied", notice.code, notice.text, notice.pid)
                    self._denials.misbehaved(notice)
                case SlowConsumer():
                    self._bulletin.slow_consumer(notice)

    def _on_opened(self, notice: SessionOpened) -> None:
        process = f"process {notice.pid or 'unknown'}"
        log.debug("%s %s registered, %s", notice.role, notice.name, process)
        if notice.proof == "managed":
            self._mesh.on_opened(notice)
            self._limits.begin()
        elif notice.role == "plugin":
            self._records.audit(notice.name, "register", notice.name, "done", process)
            self._supervisor.session_opened(notice.name, notice.session, notice.version)

    def _on_lost(self, notice: SessionLost) -> None:
        log.debug("%s %s left: %s: %s", notice.role, notice.name, notice.code, notice.text)
        if notice.role == "plugin":
            self._supervisor.session_lost(notice.name, notice.session, f"{notice.code}: {notice.text}")
        if self._stop.is_set():
            self._stopping.session_lost(notice)


def _router(config: Config, make: Callable[..., Router]) -> Router:
    bus = config.bus
    limits = Limits(
        frame_bytes=bus.max_frame_bytes,
        event_credit=bus.credit_bytes,
        publish_credit=bus.credit_bytes // 8,
        total_bytes=bus.max_waiting_bytes,
    )
    return make(
        limits=limits,
        heartbeat=bus.heartbeat_secs,
        numbers=lambda: secrets.randbits(62) + 1,
        uids=(os.getuid(), 0),
    )


def _reader(config: Config) -> Callable[[], Config]:
    return lambda: load(config.home, config.file, os.environ)
