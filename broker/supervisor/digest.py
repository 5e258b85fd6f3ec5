"""The digest of a plugin folder: it changes with whatever the plugin would run differently by."""

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

SHOWN = 12

# Python writes these while a plugin runs; they would make a folder differ from itself.
_PASSED_OVER = frozenset({"__pycache__", ".git"})
_CHUNK = 1 << 20


def digest_of(folder: Path) -> str:
    """The SHA-256 over names, kinds, execute bits and contents of everything in a folder, in hex. Reads all of it.

    Raises:
        OSError: something in it cannot be read.
    """
    whole = hashlib.sha256()
    for path in sorted(_walk(folder), key=os.fsencode):
        mode = path.lstat().st_mode
        whole.update(b"%s\0%d\0%d\0" % (os.fsencode(path.relative_to(folder)), stat.S_IFMT(mode), bool(mode & 0o100)))
        whole.update(_content(path, mode))
    return whole.hexdigest()


def _walk(folder: Path) -> Iterator[Path]:
    for entry in os.scandir(folder):
        if entry.name not in _PASSED_OVER:
            yield Path(entry.path)
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(Path(entry.path))


def _content(path: Path, mode: int) -> bytes:
    """The digest of a file's content, or of where a link points; nothing for what has no content."""
    if stat.S_ISLNK(mode):
        return hashlib.sha256(os.fsencode(path.readlink())).digest()
    if not stat.S_ISREG(mode):
        return b""
    content = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            content.update(chunk)
    return content.digest()
