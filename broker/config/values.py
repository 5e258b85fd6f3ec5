"""Kinds of values that settings may have, beyond plain numbers and words."""

import ipaddress
import os
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, Secret, ValidationInfo

# sun_path of a Unix socket has 108 bytes with the closing zero: unix(7).
SOCKET_PATH_BYTES = 107

_TCP = re.compile(r"tcp://(?:\[([^\]]+)\]|([^:\[\]]+)):(\d{1,5})")
_NETWORK_DRIVERS = ("mysql+pymysql://", "mariadb+pymysql://")
_PASSWORDS = re.compile(r"((?<=://)[^:/@]*:).*(?=@)|((?:password|passwd)=)[^&]*")


class DatabaseUrl(Secret[str]):
    """A database URL that shows itself without its password; `get_secret_value()` has it in full."""

    def _display(self) -> str:
        url = self.get_secret_value()
        # Without a scheme nothing tells where a password would begin.
        return _PASSWORDS.sub(r"\1\2***", url) if "://" in url else "***"


def _database_url(secret: DatabaseUrl, info: ValidationInfo) -> DatabaseUrl:
    url = secret.get_secret_value()
    scheme, _, rest = url.partition("://")
    if scheme == "sqlite" and rest.startswith("/"):
        file, mark, options = rest[1:].partition("?")
        return DatabaseUrl(f"sqlite:///{_database_file(file, info)}{mark}{options}")
    if url.startswith(_NETWORK_DRIVERS) and rest.partition("?")[0].partition("/")[2]:
        return secret
    raise ValueError(f"expects sqlite:///FILE or mysql+pymysql://USER:PASSWORD@HOST/DATABASE, got '{secret}'")


def _database_file(name: str, info: ValidationInfo) -> Path:
    if name in ("", ":memory:"):
        raise ValueError("the state must outlive the broker: name a file, as sqlite:///broker.db")
    return _below_home(Path(name), info)


def _below_home(path: Path, info: ValidationInfo) -> Path:
    context: dict[str, Path] = info.context or {}
    try:
        return context["home"] / path.expanduser()
    except RuntimeError as error:
        raise ValueError(f"cannot expand '{path}': {error}") from None


def _fits_a_socket(path: Path) -> Path:
    length = len(os.fsencode(path))
    if length > SOCKET_PATH_BYTES:
        raise ValueError(
            f"'{path}' has {length} bytes but the path of a Unix socket at most {SOCKET_PATH_BYTES}: "
            "use a shorter home, or set bus.socket to a shorter path"
        )
    return path


def _tcp_endpoint(text: str) -> str:
    match = _TCP.fullmatch(text)
    if not text or (match and int(match[3]) <= 65535 and _is_address(match[1] or match[2])):
        return text
    raise ValueError(f"expects tcp://ADDRESS:PORT with an IP address, as tcp://127.0.0.1:7777, got {text!r}")


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return text == "*"
    return True


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def not_yet(feature: str) -> AfterValidator:
    """Refuses a value that switches `feature` on: a setting without effect would be a lie."""

    def refuse(value: bool | float) -> bool | float:
        if value:
            raise ValueError(f"not available in this version: {feature} comes later; take the setting out")
        return value

    return AfterValidator(refuse)


Secs = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Folder = Annotated[Path, Field(strict=False), AfterValidator(_below_home)]
SocketPath = Annotated[Folder, AfterValidator(_fits_a_socket)]
TcpEndpoint = Annotated[str, AfterValidator(_tcp_endpoint)]
StateUrl = Annotated[DatabaseUrl, AfterValidator(_database_url)]
AnyCase = BeforeValidator(_lower)
