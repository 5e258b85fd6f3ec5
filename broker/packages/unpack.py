"""Writes the files of a package into a folder that did not exist before (PKG-4)."""

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from broker.packages.contents import Contents
from broker.packages.encryption import Cipher
from broker.packages.errors import PackageError, State
from broker.packages.manifest import RUNNABLE, Listed

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW


def unpack(contents: Contents, folder: Path, cipher: Cipher | None) -> dict[str, str]:
    """Makes `folder` and writes every file of the package below it; returns the SHA-256 of each by path.

    All of it is on the disk when this returns.

    Every name is opened relative to the folder above it and never through a link, so that even a name that had passed
    every check could not lead out.

    Raises:
        PackageError: a file is not what it should be, or the disk does not take it; what is there is unfinished.
    """
    try:
        folder.mkdir(mode=0o700)
        with _opened(os.open(folder, _FOLDER)) as top:
            hashes = {listed.path: _write(contents, listed, top, cipher) for listed in contents.manifest.files}
            _flush_folders(folder)
            return hashes
    except OSError as error:
        raise refusal(error, folder) from None


def refusal(error: OSError, folder: Path) -> PackageError:
    """What an error of the file system means for an installation."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return PackageError(State.REFUSED, f"there is no space left below {folder.parent}")
    return PackageError(State.REFUSED, f"cannot write below {folder.parent}: {error.strerror} ({error.filename})")


def _write(contents: Contents, listed: Listed, top: int, cipher: Cipher | None) -> str:
    *folders, name = listed.path.split("/")
    written = hashlib.sha256()
    with _descended(top, folders) as folder:
        mode = 0o500 if listed.mode == RUNNABLE else 0o400
        with os.fdopen(os.open(name, _NEW_FILE, mode, dir_fd=folder), "wb") as file:
            for piece in contents.chunks(listed, cipher):
                file.write(piece)
                written.update(piece)
            file.flush()
            os.fsync(file.fileno())
    return written.hexdigest()


@contextmanager
def _descended(top: int, folders: list[str]) -> Iterator[int]:
    here = os.dup(top)
    try:
        for name in folders:
            with suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=here)
            below = os.open(name, _FOLDER, dir_fd=here)
            os.close(here)
            here = below
        yield here
    finally:
        os.close(here)


def _flush_folders(folder: Path) -> None:
    for place, _, _ in os.walk(folder):
        with _opened(os.open(place, _FOLDER)) as fd:
            os.fsync(fd)


@contextmanager
def _opened(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)
