"""The services that install packages and remove them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol


class PackagePort(Protocol):
    """The packages of the broker; all raise BusError with the reason when it does not do what it is told."""

    async def order_install(self, actor: str, file: str, digest: str, downgrade: bool) -> Mapping[str, Any]:
        """Install a package file, the one of this digest if there is one; returns what is installed then."""

    async def order_remove(self, actor: str, name: str, purge: bool) -> Sequence[str]:
        """Stop a plugin and take its package away, with its data if that is to be purged; returns the files."""


class PackageOrders:
    """Answers the operator.

    Args:
        packages: of this broker.
        who: names the caller for the audit log.
    """

    def __init__(self, packages: PackagePort, who: Callable[[dict[str, Any]], str]) -> None:
        self._packages = packages
        self._who = who

    def handlers(self) -> Mapping[str, Callable[..., Any]]:
        """By service name."""
        return {"$broker.install": self.install, "$broker.remove": self.remove}

    async def install(
        self, file: str, digest: str = "", downgrade: bool = False, *, caller: dict[str, Any]
    ) -> Mapping[str, Any]:
        """Install a package file of this machine; returns what is installed then."""
        return await self._packages.order_install(self._who(caller), file, digest, downgrade)

    async def remove(self, name: str, purge: bool = False, *, caller: dict[str, Any]) -> dict[str, Any]:
        """Stop a plugin and take its package away."""
        return {"name": name, "files": list(await self._packages.order_remove(self._who(caller), name, purge))}
