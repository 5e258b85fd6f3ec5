"""All that is known of one plugin, and the one way in which its state changes."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

from broker.supervisor.discovery import Installed
from broker.supervisor.logs import PluginLog
from broker.supervisor.manifest import Manifest, Overrides
from broker.supervisor.plan import Candidate, Problem
from broker.supervisor.ports import Records
from broker.supervisor.process import Process
from broker.supervisor.restart import RestartLimits, RestartPolicy, RestartRecord
from broker.supervisor.states import (
    ACTIVE,
    BEGINS,
    PAUSED,
    REGISTER_STATUS,
    SETTLED,
    Cause,
    Desired,
    RegisterStatus,
    State,
    Trigger,
    next_state,
)
from broker.supervisor.view import PluginView

logger = logging.getLogger(__name__)


class Unit:
    """A plugin under supervision.

    Whoever starts or stops it holds `lock`, raises `generation` and owns `life`, the task that keeps it running; a
    life whose generation is not the current one must not start anything.

    Args:
        open_log: gives the log of a plugin that the broker runs itself.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        plugin_id: str,
        open_log: Callable[[str], PluginLog],
        records: Records,
        limits: RestartLimits,
        clock: Callable[[], float],
    ) -> None:
        self.plugin_id = plugin_id
        # Its folder; None for a process that was started by hand and has none, of which only `overrides` is known.
        self.installed: Installed | None = None
        self.overrides = Overrides()
        self.log: PluginLog | None = None
        self._open_log = open_log
        self.state = State.STOPPED
        self.desired = Desired.STOPPED
        self.managed = False
        # What it said itself when it was started by hand.
        self.claimed_version = ""
        self.generation = 0
        # The last order to stop it; orders to start it that came before are void.
        self.stop_order = 0
        self.lock = asyncio.Lock()
        self.life: asyncio.Task[None] | None = None
        self.process: Process | None = None
        self.session: int | None = None
        self.lost: asyncio.Future[str] | None = None
        # Sessions of further processes of this plugin that were started by hand, and whether they could be started.
        self.further: dict[int, asyncio.Task[bool]] = {}
        # Whether its process is to stand by until a switch.
        self.standby = False
        self.settled = asyncio.Event()
        self.settled.set()
        self.restarts = 0
        # How often it has come up, and how often its last start was tried.
        self.runs = 0
        self.attempts = 0
        self.was_killed = False
        # By limit, how often it began to exceed it.
        self.exceeded: Counter[str] = Counter()
        # What the operator should know of its state and did not bring about himself.
        self.note = ""
        self.error = ""
        self.blocked: Problem | None = None
        # Why it has failed, when it has.
        self.cause = Cause.START
        # When it is tried again by itself, in the clock's seconds.
        self.retry_at: float | None = None
        self.last_exit = ""
        self.last_words: list[str] = []
        self.record = RestartRecord(RestartPolicy.ALWAYS, limits)
        self._records = records
        self._clock = clock
        self._since = clock()
        self._began: float | None = None
        self._status = RegisterStatus.UNREGISTERED
        self._written: tuple[int, str] | None = None
        self._described: tuple[object, ...] | None = None

    @property
    def manifest(self) -> Manifest | None:
        """What it says of itself, if that can be used."""
        return self.installed.manifest if self.installed else None

    @property
    def version(self) -> str:
        """Of a process that was started by hand what it says, of all others what the folder says."""
        if not self.managed and self.claimed_version:
            return self.claimed_version
        return str(self.manifest.version) if self.manifest else ""

    @property
    def enabled(self) -> bool:
        """Whether its configuration lets it run."""
        return self.manifest.enabled if self.manifest else self.overrides.enabled is not False

    @property
    def config(self) -> dict[str, Any]:
        """Its own settings, as it gets them at initialize."""
        return (self.manifest or self.overrides).config

    @property
    def active(self) -> bool:
        """Whether the supervisor has work in hand for it."""
        return self.state in ACTIVE

    @property
    def candidate(self) -> Candidate:
        """What the dependency plan must know; one that was started by hand counts as long as it runs."""
        if self.installed:
            return self.installed.candidate
        gone = f"plugin {self.plugin_id!r} was started by hand and is gone"
        return Candidate(self.plugin_id, fault="" if self.active else gone)

    @property
    def problem(self) -> Problem:
        """Why those that need it cannot start."""
        if self.blocked:
            return self.blocked
        reason = self.error.partition("\n")[0] or f"plugin {self.plugin_id!r} is {self.state}"
        return Problem((self.plugin_id,), reason)

    def install(self, installed: Installed) -> None:
        """Takes what its folder says now."""
        self.installed = installed
        self.log = self._open_log(self.plugin_id)
        self.managed = self.managed or self.session is None
        if installed.manifest:
            self.record.policy = installed.manifest.restart

    def want(self, desired: Desired) -> None:
        """Notes what the operator wants of it from now on."""
        self.desired = desired
        self.supersede()
        self.describe()

    def supersede(self) -> None:
        """Makes sure that nothing that was decided before is begun any more."""
        self.generation += 1

    def retire(self) -> None:
        """Ends the life of a plugin at rest, in which it only waited for another try."""
        self.supersede()
        if self.life:
            self.life.cancel()
            self.life = None

    def describe(self) -> None:
        """Writes down what it is, if that is news."""
        manifest = self.manifest
        known = (
            manifest.name if manifest else self.plugin_id,
            self.version,
            manifest.description if manifest else "",
        )
        if self._described != (*known, self.enabled, self.desired):
            self._described = (*known, self.enabled, self.desired)
            name, version, description = known
            self._records.described(
                self.plugin_id,
                name=name,
                version=version,
                description=description,
                enabled=self.enabled,
                desired=self.desired,
            )

    def move(self, trigger: Trigger, error: str | None = None) -> None:
        """Changes the state as the table says, and writes down what that means for its registration.

        Args:
            error: why it is not running; None leaves what is known.
        """
        before, self.state = self.state, next_state(self.state, trigger)
        self.retry_at = None
        self._since = self._clock()
        if trigger in BEGINS:
            self._began = self._since
        elif self.state in PAUSED:
            self._began = None
        if error is not None:
            self.error = error
        if self.state in (State.RUNNING, State.STOPPED):
            self.error, self.blocked = "", None
        logger.debug("plugin %s: %s → %s", self.plugin_id, before, self.state)
        self._status = REGISTER_STATUS.get(self.state, self._status)
        self._write_status()
        if self.state in SETTLED:
            self.settled.set()
        else:
            self.settled.clear()

    def refuse(self, error: str) -> None:
        """Notes why it was not started though somebody asked for it; its state stays."""
        self.error = error
        self._status = RegisterStatus.FAILED
        self._write_status()

    def fail(self, error: str, cause: Cause, blocked: Problem | None = None) -> None:
        """Gives up on it, for now or for good."""
        self.blocked = blocked
        self.cause = cause
        self.move(Trigger.FAIL, error)
        logger.error("plugin %s failed: %s", self.plugin_id, error)

    def attach(self, session: int) -> None:
        """Takes note of its session."""
        self.session = session
        self.lost = asyncio.get_running_loop().create_future()

    def detach(self, reason: str) -> None:
        """Takes note that its session is gone."""
        self.session = None
        if self.lost and not self.lost.done():
            self.lost.set_result(reason)

    def exchange(self, beside: "Unit") -> None:
        """Trades the version, the process and the session for those of a unit that stands beside this one."""
        mine, others = self.installed, beside.installed
        assert others is not None
        beside.installed = mine
        self.install(others)
        for name in ("process", "session", "lost", "last_words"):
            own = getattr(self, name)
            setattr(self, name, getattr(beside, name))
            setattr(beside, name, own)

    def let_go(self) -> None:
        """Ends the supervision of one that was started by hand and goes on by itself."""
        if self.active:
            logger.info("plugin %s, started by hand, goes on without this broker", self.plugin_id)
            self.move(Trigger.STOP)
            self.move(Trigger.GONE)

    def ended(self, text: str) -> None:
        """Takes note of the end of a run."""
        for limit, result in self.process.keeping.by_kernel.items() if self.process else ():
            self.exceeded[limit] += 1
            self._records.exceeded(self.plugin_id, limit, result, text)
        self.process = None
        self.detach(text)
        self.last_exit = text
        self._records.exited(self.plugin_id, text, self.restarts)

    def with_last_words(self, text: str) -> str:
        """The text, and below it what the last run wrote before it ended."""
        if not self.last_words:
            return text
        return "\n".join([text, "the last lines it wrote:", *(f"  {line}" for line in self.last_words)])

    def view(self) -> PluginView:
        """What is told of it."""
        manifest = self.manifest
        return PluginView(
            name=self.plugin_id,
            version=self.version,
            description=manifest.description if manifest else "",
            state=self.state,
            desired=self.desired,
            register_status=self._status,
            managed=self.managed,
            enabled=self.enabled,
            pid=self.process.pid if self.process else None,
            session=self.session,
            restarts=self.restarts,
            uptime=None if self._began is None else self._clock() - self._began,
            since=self._clock() - self._since,
            error=self.error,
            note=self.note,
            last_exit=self.last_exit,
            requires=tuple(map(str, manifest.requires)) if manifest else (),
            parent=str(manifest.parent or "") if manifest else "",
            cause=self.cause if self.state is State.FAILED else "",
            chain=self.blocked.chain if self.blocked else (),
            retry_in=None if self.retry_at is None else max(0.0, self.retry_at - self._clock()),
            runs=self.runs,
            log_dropped=self.log.dropped_lines if self.log else 0,
            asked=self.process.confinement.asked() if self.process else {},
            in_force=self.process.in_force if self.process else None,
            run_age=self.process.age() if self.process else None,
            over=self.process.keeping.over if self.process else (),
            exceeded=dict(self.exceeded),
        )

    def _write_status(self) -> None:
        if self._written != (self._status, self.error):
            self._written = (self._status, self.error)
            self._records.registration(self.plugin_id, self._status, self.error or None)
