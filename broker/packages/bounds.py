"""How large a package may be. Every bound holds for the bytes that are really there, not for what a package says."""

from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a package may take.

    Args:
        package: bytes of the package file.
        files: how many files it may hold.
        file: bytes of one file when it is unpacked.
        unpacked: bytes of all files together.
        ratio: how many bytes may come of one packed byte, beyond `slack`; text seldom comes above 20, deflate
            itself can reach 1,032.
        slack: bytes that a file may have whatever its ratio; a file of zeros this small harms nobody.
    """

    package: int = 256 * MIB
    files: int = 10_000
    file: int = 256 * MIB
    unpacked: int = 1024 * MIB
    ratio: int = 200
    slack: int = 1 * MIB


BOUNDS = Bounds()
# The list of 10,000 files with their hashes stays well below.
MAX_MANIFEST_BYTES = 8 * MIB
MAX_SIGNATURE_BYTES = 16 * 1024
