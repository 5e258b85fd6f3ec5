"""Packages for whole brokers: made as a maker would, put where an operator would."""

import sqlite3
from pathlib import Path

from packaging.version import Version

from broker.packages.build import add_signature, build
from broker.packages.keys import make_signing_pair, read_recipient_public, read_signing, trust
from tests.e2e.mesh import SMALL_PLUGIN, Mesh

GREETING = '@plugin.service("version")\nasync def version() -> str:\n    return "{version}"\n'


class Maker:
    """Somebody who makes and signs packages."""

    def __init__(self, place: Path, name: str = "acme") -> None:
        place.mkdir(exist_ok=True)
        self.place = place
        self.name = name
        secret, self.public = make_signing_pair(place, name)
        self.key = read_signing(secret)

    def trusted_by(self, mesh: Mesh) -> "Maker":
        """Has the broker trust this maker."""
        trust(mesh.home / "keys" / "trusted", self.name, self.public)
        return self

    def folder(self, name: str, version: str, body: str | None = None, manifest: str = "") -> Path:
        """A plugin folder; its service `version` tells the version."""
        folder = self.place / f"{name}-{version}"
        folder.mkdir()
        folder.joinpath("plugin.yaml").write_text(f'name: {name}\nversion: "{version}"\n{manifest}')
        code = GREETING.format(version=version) if body is None else body
        folder.joinpath("main.py").write_text(SMALL_PLUGIN.format(name=name, body=code))
        return folder

    def package(
        self, name: str, version: str, body: str | None = None, *, manifest: str = "", recipient: Path | None = None
    ) -> bytes:
        """A signed package."""
        folder = self.folder(name, version, body, manifest)
        to = read_recipient_public(recipient) if recipient else None
        return add_signature(build(folder, name, Version(version), recipient=to), self.key)

    def file(self, name: str, version: str, body: str | None = None, *, manifest: str = "") -> Path:
        """A signed package file, outside of any broker."""
        file = self.place / f"{name}-{version}.spk"
        file.write_bytes(self.package(name, version, body, manifest=manifest))
        return file


def traces(mesh: Mesh) -> list[str]:
    """Everything below the home that a package could have left there, but for the folders that are always there."""
    places = (mesh.home / "installed", mesh.home / "plugins")
    found = {str(path.relative_to(mesh.home)) for place in places if place.is_dir() for path in place.rglob("*")}
    return sorted(found - {"installed/.active", "installed/.staging"})


def audited(mesh: Mesh, action: str) -> list[tuple[str, str, str]]:
    """Target, result and detail of the audit entries about an action."""
    with sqlite3.connect(mesh.home / "broker.db") as database:
        query = "SELECT target, result, detail FROM t_audit WHERE action = ? ORDER BY id"
        return database.execute(query, (action,)).fetchall()
