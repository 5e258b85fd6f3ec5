"""Kinds of values that settings may have, beyond plain numbers and words.

A function among the annotations of a kind is a step: once the value is of that kind, it takes the value and the home
of the broker, and gives the value in force or raises ValueError.
"""

import ipaddress
import os
import re
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

# sun_path of a Unix socket has 108 bytes with the closing zero: unix(7).
SOCKET_PATH_BYTES = 107

_TCP = re.compile(r"tcp://(?:\[([^\]]+)\]|([^:\[\]]+)):(\d{1,5})")
_NETWORK_DRIVERS = ("mysql+pymysql://", "mariadb+pymysql://")
_PASSWORDS = re.compile(r"((?<=://)[^:/@]*:).*(?=@)|((?:password|passwd)=)[^&]*")


class DatabaseUrl:
    """A database URL that shows itself without its password; `get_secret_value()` has it in full."""

    def __init__(self, url: str) -> None:
        self._url = url

    def get_secret_value(self) -> str:
        """The URL with its password."""
        return self._url

    def __eq__(self, other: object) -> bool:
        # With the password: a reload must notice a new one.
        return isinstance(other, DatabaseUrl) and self._url == other._url

    def __hash__(self) -> int:
        return hash(self._url)

    def __str__(self) -> str:
        # Without a scheme nothing tells where a password would begin.
        return _PASSWORDS.sub(r"\1\2***", self._url) if "://" in self._url else "***"

    def __repr__(self) -> str:
        return f"DatabaseUrl('{self}')"


def bare(kind: Any) -> Any:
    """A kind without its annotations."""
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def annotations(kind: Any) -> tuple[Any, ...]:
    """The bounds and steps of a kind, in order."""
    return get_args(kind)[1:] if get_origin(kind) is Annotated else ()


def made(kind: type[Any], value: object) -> object:
    """Makes a path or a database URL of a text; defaults are made already."""
    if isinstance(value, kind):
        return value
    if isinstance(value, str):
        return kind(value)
    raise TypeError


def _database_url(secret: DatabaseUrl, home: Path) -> DatabaseUrl:
    url = secret.get_secret_value()
    scheme, _, rest = url.partition("://")
    if scheme == "sqlite" and rest.startswith("/"):
        file, mark, options = rest[1:].partition("?")
        return DatabaseUrl(f"sqlite:///{_database_file(file, home)}{mark}{options}")
    if url.startswith(_NETWORK_DRIVERS) and rest.partition("?")[0].partition("/")[2]:
        return secret
    raise ValueError(f"expects sqlite:///FILE or mysql+pymysql://USER:PASSWORD@HOST/DATABASE, got '{secret}'")


def _database_file(name: str, home: Path) -> Path:
    if name in ("", ":memory:"):
        raise ValueError("the state must outlive the broker: name a file, as sqlite:///broker.db")
    return _below_home(Path(name), home)


def _below_home(path: Path, home: Path) -> Path:
    try:
        return home / path.expanduser()
    except RuntimeError as error:
        raise ValueError(f"cannot expand '{path}': {error}") from None


def _fits_a_socket(path: Path, _home: Path) -> Path:
    length = len(os.fsencode(path))
    if length > SOCKET_PATH_BYTES:
        raise ValueError(
            f"'{path}' has {length} bytes but the path of a Unix socket at most {SOCKET_PATH_BYTES}: "
            "use a shorter home, or set bus.socket to a shorter path"
        )
    return path


def _tcp_endpoint(text: str, _home: Path) -> str:
    match = _TCP.fullmatch(text)
    if not text or (match and int(match[3]) <= 65535 and _is_address(match[1] or match[2])):
        return text
    raise ValueError(f"expects tcp://ADDRESS:PORT with an IP address, as tcp://127.0.0.1:7777, got {text!r}")


def _ip_address(text: str, _home: Path) -> str:
    if text != "*" and _is_address(text):
        return text
    raise ValueError(f"expects an IP address, as 127.0.0.1, or 0.0.0.0 for all of this machine, got {text!r}")


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return text == "*"
    return True


Folder = Annotated[Path, _below_home]
SocketPath = Annotated[Folder, _fits_a_socket]
TcpEndpoint = Annotated[str, _tcp_endpoint]
IpAddress = Annotated[str, _ip_address]
StateUrl = Annotated[DatabaseUrl, _database_url]
