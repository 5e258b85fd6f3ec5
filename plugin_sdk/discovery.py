"""Where the broker is, and what proves to it who we are."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from plugin_sdk.wire.errors import ConnectionLost

DEFAULT_HOME = "~/.plugmesh"


@dataclass(frozen=True, slots=True)
class CurveKeys:
    """What TCP needs: the server's public key and our own pair, Z85."""

    server: bytes
    public: bytes
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Address:
    """An endpoint with the token or CURVE keys for it.

    `token` may be empty over TCP; `admits` is the one name that it admits, empty when that is not known.
    """

    endpoint: str
    token: str = field(default="", repr=False)
    curve: CurveKeys | None = None
    admits: str = ""


def find_home(home: str | Path | None = None, environ: Mapping[str, str] | None = None) -> Path:
    """The broker's home: the one given, else BROKER_HOME, else ~/.plugmesh."""
    env = os.environ if environ is None else environ
    return Path(home or env.get("BROKER_HOME") or DEFAULT_HOME).expanduser()


def find_broker(
    endpoint: str | None = None,
    key: str | Path | None = None,
    home: str | Path | None = None,
    environ: Mapping[str, str] | None = None,
    plugin: str = "",
) -> Address:
    """Work out how to reach the broker.

    Args:
        endpoint: a ZeroMQ endpoint; default BROKER_ENDPOINT, else the socket in the home.
        key: a token or key, or the path of a file that holds one; for TCP the path of a key file made by
            `broker key add NAME --tcp`. Default BROKER_TOKEN, else BROKER_KEY, else a key in the home.
        home: the broker's home; default BROKER_HOME, else ~/.plugmesh.
        environ: the environment, for tests.
        plugin: the plugin's name: a key of its own in the home goes before the operator's.

    Raises:
        ConnectionLost: no key can be found or read; the text says where it was looked for.
    """
    env = os.environ if environ is None else environ
    base = find_home(home, env)
    where = endpoint or env.get("BROKER_ENDPOINT") or f"ipc://{base}/run/broker.sock"
    if not key and env.get("BROKER_TOKEN"):
        return Address(where, env["BROKER_TOKEN"], admits=env.get("BROKER_PLUGIN", ""))
    key = key or env.get("BROKER_KEY")
    if where.startswith("tcp:"):
        return Address(where, curve=_read_curve(key))
    if isinstance(key, str) and not _is_path(key):
        return Address(where, key)
    return Address(where, _read_key([Path(key)] if key else _key_files(base, plugin)))


def _is_path(key: str) -> bool:
    """Keys for the local socket are urlsafe text: with a slash it is meant as a path, even if there is no such file."""
    return "/" in key or os.path.isfile(key)


def _key_files(base: Path, plugin: str) -> list[Path]:
    own = [base / "keys" / "plugins" / f"{plugin}.key"] if plugin else []
    return [*own, base / "keys" / "client.key"]


def _read_key(files: list[Path]) -> str:
    for file in files:
        try:
            return file.read_text(encoding="ascii").strip()
        except FileNotFoundError:
            continue
        except UnicodeDecodeError:
            raise ConnectionLost(f"{file} is not a key file: it holds more than plain text", "bad_token") from None
        except OSError as error:
            raise ConnectionLost(f"cannot read the key {file}: {error.strerror}", "bad_token") from None
    raise ConnectionLost(
        f"no key found at {' or '.join(map(str, files))}: is the broker's home right (--home, BROKER_HOME),"
        " and was `broker run` ever started there?",
        "unavailable",
    )


def _read_curve(key: str | Path | None) -> CurveKeys:
    if not key:
        raise ConnectionLost("TCP needs a key file: make one with `broker key add NAME --tcp`", "bad_token")
    try:
        lines = dict(line.split("=", 1) for line in Path(key).read_text().splitlines() if "=" in line)
        return CurveKeys(*(lines[field].strip().encode("ascii") for field in ("server", "public", "secret")))
    except OSError as error:
        raise ConnectionLost(f"cannot read the key file {key}: {error.strerror}", "bad_token") from None
    except (KeyError, ValueError):
        text = f"{key} is not a key file for TCP: it needs the lines server=, public= and secret="
        raise ConnectionLost(text, "bad_token") from None
