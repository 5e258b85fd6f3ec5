"""Finds the plugins that are installed, and says of each broken one what is wrong with it."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

from broker.supervisor.document import BadDocument, read_document
from broker.supervisor.manifest import NO_ORDERS, Manifest, Overrides
from broker.supervisor.plan import Candidate
from broker.supervisor.section import read_as

MANIFEST = "plugin.yaml"
ACTIVE = ".active"  # beside the folders of installed packages, with a link to each that is in force


@dataclass(frozen=True, slots=True)
class Installed:
    """A plugin folder: what it says, or why it cannot be used.

    Args:
        manifest: None when `fault` is set; what the operator's file may change is changed in it.
        command: the program to run and its arguments.
        orders: the operator's file.
        packaged: whether it was installed from a package file.
    """

    plugin_id: str
    folder: Path
    manifest: Manifest | None = None
    command: tuple[str, ...] = ()
    fault: str = ""
    orders: Overrides = NO_ORDERS
    packaged: bool = False

    @property
    def candidate(self) -> Candidate:
        """What the dependency plan must know."""
        if self.manifest is None:
            return Candidate(self.plugin_id, origin=str(self.folder), fault=self.fault)
        return Candidate(
            self.plugin_id,
            version=self.manifest.version,
            origin=str(self.folder),
            requires=self.manifest.requires,
            parent=self.manifest.parent,
            after=self.manifest.after,
            conflicts=self.manifest.conflicts,
            enabled=self.manifest.enabled,
            fault=self.fault,
        )


@dataclass(frozen=True, slots=True)
class Catalog:
    """Everything that was found; `warnings` are for the log."""

    plugins: tuple[Installed, ...]
    warnings: tuple[str, ...] = ()


def discover(plugin_dirs: Sequence[Path], config_dir: Path) -> Catalog:
    """Reads all plugin folders and their operator's files. Reads files: not for the event loop's thread.

    Args:
        plugin_dirs: folders that hold plugin folders; of two plugins with one id, the one found first counts.
        config_dir: holds `ID.yaml` for the plugins that have one.
    """
    plugins: dict[str, Installed] = {}
    warnings: list[str] = []
    for directory in plugin_dirs:
        for folder in _folders(directory, warnings):
            found = read_folder(folder, config_dir)
            if first := plugins.get(found.plugin_id):
                found = _second(found, first, len(plugins))
            plugins[found.plugin_id] = found
    warnings += _stray_files(config_dir, plugins)
    return Catalog(tuple(plugins.values()), tuple(warnings))


def shipped() -> Path:
    """The folder of the plugins that come with plugmesh, installed or in the source tree."""
    from importlib.resources import files

    return Path(str(files("broker.services")))


def read_folder(folder: Path, config_dir: Path) -> Installed:
    """Reads one plugin folder; never raises for what is in it."""
    name = folder.name
    # An installed package is behind a link that an upgrade exchanges; what runs must not be pulled away under itself.
    folder = folder.resolve() if folder.is_symlink() else folder
    packaged = len(folder.parents) > 1 and (folder.parents[1] / ACTIVE).is_dir()
    try:
        manifest = read_as(Manifest, read_document(folder / MANIFEST))
    except BadDocument as error:
        return Installed(name, folder, fault=str(error))
    try:
        orders = read_overrides(manifest.id, config_dir)
        manifest = manifest.overridden(orders)
        return Installed(manifest.id, folder, manifest, _command(manifest, folder), orders=orders, packaged=packaged)
    except BadDocument as error:
        return Installed(manifest.id, folder, fault=str(error))


def read_overrides(plugin_id: str, config_dir: Path) -> Overrides:
    """What the operator says of a plugin; nothing when there is no file.

    Raises:
        BadDocument: the file cannot be used.
    """
    path = config_dir / f"{plugin_id}.yaml"
    return read_as(Overrides, read_document(path)) if path.exists() else Overrides()


def _second(found: Installed, first: Installed, number: int) -> Installed:
    text = f"{found.folder}: plugin id {found.plugin_id!r} is taken by {first.folder}: rename or remove one of them"
    return replace(found, plugin_id=f"{found.plugin_id}#{number}", manifest=None, fault=text)


def _command(manifest: Manifest, folder: Path) -> tuple[str, ...]:
    if manifest.command:
        return manifest.command
    names = dict.fromkeys(("main.py", f"{manifest.id}.py"))
    for name in names:
        if (folder / name).is_file():
            return sys.executable, name
    raise BadDocument(f"{folder}: has no {' or '.join(names)}, and {MANIFEST} names no 'command' to run instead")


def _folders(directory: Path, warnings: list[str]) -> Iterator[Path]:
    try:
        entries = sorted(directory.iterdir())
    except OSError as error:
        warnings.append(f"plugin directory {directory} cannot be read: {error.strerror}")
        return
    for entry in entries:
        if entry.name.startswith(".") or not entry.is_dir():
            continue
        if (entry / MANIFEST).exists():
            yield entry
        elif (entry / "plugin.yml").exists():
            warnings.append(f"{entry / 'plugin.yml'} is not read: rename it to {MANIFEST}")


def _stray_files(config_dir: Path, plugins: dict[str, Installed]) -> Iterator[str]:
    for path in sorted(config_dir.glob("*.yaml")) if config_dir.is_dir() else ():
        near = get_close_matches(path.stem, plugins, n=1)
        if path.stem not in plugins and near:
            yield f"{path} belongs to no installed plugin; did you mean {near[0]}.yaml?"
