"""Puts the unit file where systemd reads it, and takes it away again, by way of systemctl."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from broker.systemd.unit import is_untouched

SYSTEM_UNITS = Path("/etc/systemd/system")
_BOOTED = Path("/run/systemd/system")  # sd_booted(3)
_COMMAND_SECS = 120.0


class SystemdError(Exception):
    """The unit cannot be installed or removed; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where units are kept, and who manages them.

    Args:
        folder: of the unit files.
        user: the user's own manager, not the one of the system.
    """

    folder: Path
    user: bool

    @classmethod
    def of(cls, user: bool, environ: Mapping[str, str]) -> Place:
        """The place for units of the system, or of this user."""
        if not user:
            return cls(SYSTEM_UNITS, False)
        config = environ.get("XDG_CONFIG_HOME", "")
        base = Path(config) if config.startswith("/") else Path.home() / ".config"
        return cls(base / "systemd" / "user", True)

    @property
    def flag(self) -> list[str]:
        """What tells systemctl which manager is meant."""
        return ["--user"] if self.user else []

    def file(self, name: str) -> Path:
        """The unit file of a service."""
        return self.folder / f"{name}.service"


class Installer:
    """Changes the units of one place.

    Args:
        place: which.

    Raises:
        SystemdError: there is no systemctl.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        found = shutil.which("systemctl")
        if found is None:
            raise SystemdError("there is no systemctl here: print the unit with `broker systemd show` instead")
        self._systemctl = found

    @property
    def is_running(self) -> bool:
        """Whether the manager runs: in a container or an image that is being built it often does not."""
        if not _BOOTED.is_dir():
            return False
        return not self._place.user or self._run("show-environment")[0] == 0

    def install(self, name: str, text: str, *, force: bool, start: bool) -> Iterator[str]:
        """Write the unit and enable it; yields what has been done, a line each.

        Args:
            name: of the unit, without `.service`.
            text: of its file.
            force: also replace a file that was edited, which is then kept beside it.
            start: start it now, too.

        Raises:
            SystemdError: it was edited, or cannot be written, enabled or started.
        """
        yield from self._write(self._place.file(name), text, force=force)
        if self.is_running:
            self._do("daemon-reload")
        self._do("enable", f"{name}.service")
        yield f"{name}.service is enabled"
        if start:
            self._do("restart", f"{name}.service")
            yield f"{name}.service is started"
        elif not self.is_running:
            yield "systemd does not run here: it reads the unit when it starts"

    def uninstall(self, name: str, *, force: bool) -> Iterator[str]:
        """Stop and disable the service and remove its unit; yields what has been done, a line each.

        Raises:
            SystemdError: there is none, it was edited, or systemd refuses.
        """
        file = self._place.file(name)
        if not file.exists():
            raise SystemdError(f"there is no {file}: nothing to uninstall")
        yield from self._keep(file, force=force)
        if self.is_running:
            self._do("stop", f"{name}.service")
        self._do("disable", f"{name}.service")
        yield f"{name}.service is disabled"
        try:
            file.unlink()
        except OSError as error:
            raise SystemdError(f"cannot remove {file}: {error.strerror}") from None
        if self.is_running:
            self._do("daemon-reload")
        yield f"removed {file}"

    def _write(self, file: Path, text: str, *, force: bool) -> list[str]:
        try:
            if file.exists() and file.read_text() == text:
                return [f"{file} is as it should be"]
            done = self._keep(file, force=force)
            file.parent.mkdir(parents=True, exist_ok=True)
            draft = file.with_suffix(".service.part")
            draft.write_text(text)
            draft.chmod(0o644)
            draft.replace(file)
        except (OSError, UnicodeDecodeError) as error:
            hint = "" if self._place.user else " (units of the system are for root; --user makes one of your own)"
            raise SystemdError(f"cannot write {file}: {getattr(error, 'strerror', None) or error}{hint}") from None
        return [*done, f"wrote {file}"]

    def _keep(self, file: Path, *, force: bool) -> list[str]:
        """See that no edited unit is lost."""
        if not file.exists() or is_untouched(file.read_text(errors="replace")):
            return []
        if not force:
            raise SystemdError(
                f"{file} was edited, or was not made by `broker systemd install`: move your changes into a drop-in"
                " (systemctl edit), or use --force, which keeps the file beside the new one"
            )
        kept = file.with_suffix(".service.old")
        shutil.copy2(file, kept)
        return [f"kept the edited unit as {kept}"]

    def _do(self, *args: str) -> None:
        status, output = self._run(*args)
        if status:
            raise SystemdError(f"systemctl {' '.join([*self._place.flag, *args])} failed: {output}")

    def _run(self, *args: str) -> tuple[int, str]:
        command = [self._systemctl, *self._place.flag, *args]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_COMMAND_SECS, env={**os.environ})
        except subprocess.TimeoutExpired:
            return 1, f"no answer within {_COMMAND_SECS:g} s"
        return done.returncode, (done.stderr or done.stdout).strip()
