"""Which names the files of a package may have, and the name of the package itself.

Stricter than a Linux file system: a package that unpacks here must mean the same files everywhere.
"""

import re
import unicodedata
from collections.abc import Iterable

from packaging.version import InvalidVersion, Version

from broker.packages.errors import PackageError, State
from plugin_sdk.wire.subjects import BadSubject, check_name

SUFFIX = ".spk"
MAX_PATH_BYTES = 512
MAX_PART_BYTES = 200
MAX_PARTS = 16

# Separators and drive letters of other systems, and what their shells and file systems give a meaning to.
_FOREIGN = re.compile(r'[\\:*?"<>|]')


def check_path(path: str) -> str:
    """Returns the path of a file in a package, relative and with `/`.

    Raises:
        PackageError: UNSAFE, with the reason.
    """
    parts = path.split("/")
    if path.startswith("/"):
        raise _unsafe(path, "is absolute")
    if ".." in parts or "." in parts:
        raise _unsafe(path, "leads out of the package or in circles")
    if "" in parts:
        raise _unsafe(path, "has an empty part")
    if _FOREIGN.search(path) or any(unicodedata.category(letter).startswith("C") for letter in path):
        raise _unsafe(
            path, 'has a character that is not allowed in names: a control character or one of \\ : * ? " < > |'
        )
    if not unicodedata.is_normalized("NFC", path):
        raise _unsafe(path, "is not in Unicode normal form C: rename the file")
    if any(part[-1] in ". " for part in parts):
        raise _unsafe(path, "has a part that ends with a dot or a space")
    longest = max(len(part.encode()) for part in parts)
    if len(path.encode()) > MAX_PATH_BYTES or longest > MAX_PART_BYTES or len(parts) > MAX_PARTS:
        limits = f"{MAX_PATH_BYTES} bytes, {MAX_PART_BYTES} a part, {MAX_PARTS} parts"
        raise _unsafe(path, f"is too long: at most {limits}")
    return path


def check_together(paths: Iterable[str]) -> None:
    """Checks that paths, each of them good, name different files on every file system.

    Raises:
        PackageError: UNSAFE; two are equal, differ in case only, or one is the folder of another.
    """
    spelt: dict[str, str] = {}
    files: set[str] = set()
    for path in paths:
        for place in _with_folders(path):
            known = spelt.setdefault(_folded(place), place)
            if known != place:
                raise _unsafe(place, f"differs from {known!r} in case only: rename one of them")
        if path in files:
            raise _unsafe(path, "is there twice")
        files.add(path)
    for path in files:
        for folder in _with_folders(path)[:-1]:
            if folder in files:
                raise _unsafe(path, f"needs a folder where {folder!r} is a file")


def file_name(plugin_id: str, version: Version | str) -> str:
    """The name of a package file (PKG-1)."""
    return f"{plugin_id}-{version}{SUFFIX}"


def parse_file_name(name: str) -> tuple[str, Version] | None:
    """Plugin id and version that a file name tells; None when it is not of the form `ID-VERSION.spk`."""
    stem, dot, suffix = name.rpartition(".")
    plugin_id, dash, version = stem.rpartition("-")
    if dot + suffix != SUFFIX or not dash:
        return None
    try:
        found = check_name(plugin_id), Version(version)
    except (BadSubject, InvalidVersion):
        return None
    return found if str(found[1]) == version else None


def _with_folders(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[: number + 1]) for number in range(len(parts))]


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", path.casefold())


def _unsafe(path: str, why: str) -> PackageError:
    return PackageError(State.UNSAFE, f"the file name {path[:120]!r} {why}")
