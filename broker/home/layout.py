"""The home of a broker: where everything lives, and the keys that admit peers."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from broker.home.lock import HomeError
from plugin_sdk.wire.subjects import check_name

OPERATOR = "operator"
PARTS = ("keys", "keys/plugins", "keys/curve", "keys/curve/clients", "logs", "run", "plugins", "config", "data")


@dataclass(frozen=True, slots=True)
class CurvePair:
    """A CURVE key pair, Z85."""

    public: str
    secret: str


class Home:
    """The directory of one broker and of its secrets.

    Args:
        path: made on first use, for the user only.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().absolute()
        self._keys = self.path / "keys"
        self.logs = self.path / "logs"

    def prepare(self) -> None:
        """Make the directories and the operator's key; raises HomeError."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            for part in PARTS:
                (self.path / part).mkdir(mode=0o700, exist_ok=True)
            if self._keys.stat().st_mode & 0o077:
                self._keys.chmod(0o700)
            key = self._keys / "client.key"
            if not key.exists() or not _read(key):
                _write_secret(key, secrets.token_urlsafe(32))
        except OSError as error:
            raise HomeError(
                f"cannot use {self.path} as the broker's home: {error.strerror} ({error.filename})"
                " (choose another with --home or BROKER_HOME)"
            ) from None

    def keys(self) -> dict[str, str]:
        """Every key that admits over the local socket: from key to the plugin it admits, or to `operator`.

        Raises:
            HomeError: a key file cannot be read; a broker that went on would refuse whom that key admits.
        """
        plugins = sorted((self._keys / "plugins").glob("*.key"))
        found = {_read(file): file.stem for file in plugins if file.stem != OPERATOR}
        found[_read(self._keys / "client.key")] = OPERATOR
        found.pop("", None)
        return found

    def add_plugin_key(self, name: str, *, replace: bool = False) -> Path:
        """Make a key that admits exactly the plugin `name`, started by hand; returns its file.

        Args:
            replace: make it in the place of one that exists; it is refused with HomeError otherwise.
        """
        if name == OPERATOR:
            raise HomeError(f"{OPERATOR!r} is who holds keys/client.key already: name the plugin that the key is for")
        file = self._keys / "plugins" / f"{check_name(name)}.key"
        _refuse_to_replace(file, name, replace)
        _write_secret(file, secrets.token_urlsafe(32))
        return file

    def server_pair(self) -> CurvePair | None:
        """The broker's own CURVE keys, or None before they were made; raises HomeError as `keys` does."""
        return _read_pair(self._keys / "curve" / "server.key")

    def save_server_pair(self, pair: CurvePair) -> None:
        """Keep the broker's own CURVE keys."""
        _write_secret(self._keys / "curve" / "server.key", f"public={pair.public}\nsecret={pair.secret}\n")

    def tcp_clients(self) -> dict[str, str]:
        """From public CURVE key to the plugin name that it proves, or to `operator`; raises HomeError, too."""
        files = sorted((self._keys / "curve" / "clients").glob("*.pub"))
        return {_read(file): file.stem for file in files}

    def add_tcp_client(self, name: str, pair: CurvePair, server: str, *, replace: bool = False) -> Path:
        """Admit a CURVE key as `name`; returns the key file to give to that peer.

        Args:
            server: the broker's public key.
            replace: as for a plugin's key.
        """
        folder = self._keys / "curve" / "clients"
        _refuse_to_replace(folder / f"{check_name(name)}.pub", name, replace)
        _write_secret(folder / f"{name}.pub", pair.public)
        file = folder / f"{name}.key"
        _write_secret(file, f"server={server}\npublic={pair.public}\nsecret={pair.secret}\n")
        return file

    def remove_key(self, name: str) -> list[Path]:
        """Take back every key of `name`; returns the files removed. The operator's local key stays."""
        check_name(name)
        folder = self._keys / "curve" / "clients"
        every = [self._keys / "plugins" / f"{name}.key", folder / f"{name}.key", folder / f"{name}.pub"]
        removed = [file for file in every if file.exists()]
        for file in removed:
            file.unlink()
        return removed


def _refuse_to_replace(file: Path, name: str, replace: bool) -> None:
    """Whoever holds the old key would be locked out, and learn of it at the next registration only."""
    if file.exists() and not replace:
        raise HomeError(f"{name!r} has a key already: {file}; to take that back and make a new one add --replace")


def _write_secret(file: Path, text: str) -> None:
    """Write for the owner only, and never half."""
    draft = file.with_suffix(file.suffix + ".part")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(text)
    draft.replace(file)


def _read(file: Path) -> str:
    own = file.name in ("client.key", "server.key")
    way_out = "remove it, and `broker run` makes a new one" if own else "remove it, and make a new one: broker key add"
    try:
        return file.read_text(encoding="ascii").strip()
    except UnicodeDecodeError:
        raise HomeError(f"{file} is not a key file: it holds more than plain text ({way_out})") from None
    except OSError as error:
        raise HomeError(f"cannot read the key {file}: {error.strerror} ({way_out})") from None


def _read_pair(file: Path) -> CurvePair | None:
    if not file.exists():
        return None
    lines = dict(line.split("=", 1) for line in _read(file).splitlines() if "=" in line)
    try:
        return CurvePair(lines["public"], lines["secret"])
    except KeyError:
        raise HomeError(f"{file} holds no CURVE key pair: remove it, and new keys are made") from None
