"""What the plugin folders hold, seen through the operator's standing decisions."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from msgspec import structs

from broker.supervisor.digest import digest_of
from broker.supervisor.discovery import MANIFEST, Catalog, Installed, read_folder
from broker.supervisor.standing import Choice, Standing


def as_decided(catalog: Catalog, standing: Standing, config_dir: Path) -> Catalog:
    """The catalog with the versions that plugins were upgraded to, and as they were enabled or disabled by command.

    Reads files: not for the event loop's thread.
    """
    found = {each.plugin_id: each for each in catalog.plugins}
    warnings = list(catalog.warnings)
    for name, choice in standing.folders.items():
        if warning := _objection(found.get(name), choice):
            warnings.append(f"plugin {name!r} was upgraded to {choice.folder}, {warning}")
        elif (chosen := read_folder(Path(choice.folder), config_dir)).plugin_id == name:
            found[name] = chosen
    plugins = tuple(with_enabled(each, standing.enabled) for each in found.values())
    return Catalog(plugins, tuple(warnings))


def with_enabled(found: Installed, enabled: Mapping[str, bool]) -> Installed:
    """The same, enabled or disabled as the operator said by command."""
    if found.manifest is None or found.plugin_id not in enabled:
        return found
    return replace(found, manifest=structs.replace(found.manifest, enabled=enabled[found.plugin_id]))


def digest_or_nothing(folder: Path) -> str:
    """The digest of a folder; an empty text for one that cannot be read."""
    try:
        return digest_of(folder)
    except OSError:
        return ""


def _objection(own: Installed | None, choice: Choice) -> str:
    if own is not None and digest_or_nothing(own.folder) != choice.own:
        return f"but its own folder {own.folder} has been changed since: that one counts"
    if own is not None and not Path(choice.folder, MANIFEST).exists():
        return f"but that is gone: {own.folder} counts"
    return ""
