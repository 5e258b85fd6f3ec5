"""What a package asks for, shown to the person who decides."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from broker.cli.session import dump_json, printable
from broker.home import Home
from broker.packages.errors import KeyFileError, PackageError, State

if TYPE_CHECKING:
    from broker.packages.opened import Opened, Rules

# In the order in which a person wants to know.
_WISHES = {
    "description": "is",
    "parent": "mounts on",
    "requires": "requires",
    "after": "starts after",
    "conflicts": "conflicts with",
    "services": "serves",
    "permissions": "asks for",
    "limits": "limits",
    "sandbox": "sandbox",
    "command": "runs",
    "env": "environment",
}
_EVERYTHING = "everything on the bus, as it names nothing in particular"


@dataclass(frozen=True, slots=True)
class LookedInto:
    """A package file that is whole, and the rules of the broker that it is for."""

    package: Opened
    rules: Rules

    @property
    def title(self) -> str:
        """One line: what it is and how it stands."""
        manifest, verdict = self.package.manifest, self.package.verdict
        by = f", signed by {verdict.signer} ({verdict.key})" if verdict.signer else ""
        return f"{manifest.id} {manifest.version}: {self.package.state}{by}"

    def wishes(self) -> Mapping[str, Any]:
        """What its plugin.yaml says; raises PackageError when that cannot be used or read."""
        from broker.packages.opened import own_key
        from broker.supervisor.confinement import PACKAGE_SANDBOX
        from broker.supervisor.discovery import MANIFEST, read_folder
        from broker.supervisor.document import read_document

        with tempfile.TemporaryDirectory(prefix="plugmesh-") as place:
            folder = Path(place) / self.package.manifest.id
            try:
                self.package.unpack(folder, own_key(self.rules) if self.package.manifest.encryption else None)
            except KeyFileError as error:
                raise PackageError(State.REFUSED, str(error)) from None
            found = read_folder(folder, Path(place))
            if found.manifest is None:
                raise PackageError(State.MALFORMED, found.fault.replace(f"{folder}/", ""))
            data = read_document(folder / MANIFEST).data
        sandbox = {"mode": PACKAGE_SANDBOX, **(data.get("sandbox") or {})}
        permissions = _EVERYTHING if found.manifest.permissions is None else data["permissions"]
        return {**data, "permissions": permissions, "sandbox": sandbox}


def look_into(home: Path, file: Path, allow_unsigned: Iterable[str]) -> LookedInto:
    """Checks a package file as the broker of this home would; raises PackageError when it is not whole."""
    from broker.packages.opened import Rules, look, private_copy

    place = Home(home)
    rules = Rules(place.trusted, place.recipient, frozenset(allow_unsigned))
    with tempfile.TemporaryDirectory(prefix="plugmesh-") as folder:
        copy = Path(folder) / "package"
        private_copy(file, copy)
        return LookedInto(look(copy, rules.keys()), rules)


def show_wishes(wishes: Mapping[str, Any]) -> None:
    """Prints what a plugin.yaml asks for, one wish a line."""
    for name, title in _WISHES.items():
        if wishes.get(name) not in (None, "", [], {}):
            # Whoever made the package must neither hide what it asks for, nor add lines of his own.
            text = printable("; ".join(_shown(wishes[name]))).replace("\n", " ")
            click.echo(f"  {title:<15} {text}")


def _shown(value: Any, name: str = "") -> Iterator[str]:
    """A text for each value, with the names that lead to it before it."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _shown(inner, f"{name}{key} ")
    elif isinstance(value, list) and all(isinstance(each, str) for each in value):
        yield name + (", ".join(value) or "nothing")
    else:
        yield name + (value if isinstance(value, str) else dump_json(value))
