"""Any bytes as a package file are a package that is sound and within its bounds, or a refusal that says why.

Every file of a sound one is unpacked, and its names can be files below one folder on any machine.
"""

from __future__ import annotations

from collections.abc import Iterator

from broker.packages.bounds import Bounds
from broker.packages.contents import Contents, read_archive
from broker.packages.errors import PackageError
from broker.packages.names import check_path, check_together
from tests.unit.packages.making import Raw, package_of, raw_zip

BOUNDS = Bounds(package=1 << 20, files=50, file=100_000, unpacked=200_000, ratio=50, slack=1000)
GOOD = package_of({"plugin.yaml": b"name: small\n", "main.py": b"print()\n" * 50, "a/b/c": bytes(range(256))})


def read_through(data: bytes) -> Contents | None:
    """The package if it is one; every byte of it has been unpacked then, and none beyond the bounds."""
    found: Contents | PackageError
    try:
        contents = found = read_archive(data, BOUNDS)
        sizes = [sum(len(piece) for piece in contents.chunks(listed)) for listed in contents.manifest.files]
    except PackageError as error:
        found = error
    if isinstance(found, PackageError):
        assert found.text
        assert str(found) == f"{found.state}: {found.text}"
        return None
    assert sizes == [listed.size for listed in contents.manifest.files]
    assert sum(sizes) <= BOUNDS.unpacked
    for listed in contents.manifest.files:
        check_path(listed.path)
    check_together(listed.path for listed in contents.manifest.files)
    return contents


def check(data: bytes) -> None:
    """Raise AssertionError, or anything else, when the bytes break the invariant."""
    read_through(data)


def seeds() -> Iterator[bytes]:
    """Sound ones, one that leaves its folder, zip files that are none, and one that unpacks to more than it says."""
    yield GOOD
    yield package_of({"plugin.yaml": b""})
    yield package_of({"plugin.yaml": b"", "../main.py": b""})
    yield raw_zip()
    yield raw_zip(Raw(name=b"../plugin.yaml", content=b"name: small\n"))
    yield raw_zip(Raw(name=b"MANIFEST.json", content=bytes(90_000), method=8, size=10))
