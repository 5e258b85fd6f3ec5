"""Packages that only one broker can read: each file under AES-GCM, their key under that broker's RSA key (PKG-3).

Every package has a new key, and every file in it its own nonce, its number; so no nonce is used twice with a key
(NIST SP 800-38D, section 8). Id, version and path are authenticated with each file, so files cannot change places. Who
made a package is not shown by this, only by its signature, which covers the hashes of the encrypted bytes.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from broker.packages.errors import PackageError, State
from broker.packages.keys import recipient_id
from broker.packages.manifest import ALGORITHM, Encryption

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.padding import OAEP
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

KEY_BYTES = 32
TAG_BYTES = 16


@dataclass(frozen=True, slots=True)
class Cipher:
    """Encrypts and decrypts the files of one package.

    Args:
        package: id and version, which bind a file to its package.
    """

    key: bytes
    package: str

    def encrypt(self, number: int, path: str, content: bytes) -> bytes:
        """The bytes of a file as they stand in the package; `number` counts its files from 0."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        return AESGCM(self.key).encrypt(_nonce(number), content, self._bound(path))

    def decrypt(self, number: int, path: str, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """The content of a file piece by piece; none of it may be used before the last has come.

        Raises:
            PackageError: MODIFIED; it is not what was encrypted.
        """
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers import Cipher as Primitive
        from cryptography.hazmat.primitives.ciphers import algorithms, modes

        reader = Primitive(algorithms.AES(self.key), modes.GCM(_nonce(number))).decryptor()
        reader.authenticate_additional_data(self._bound(path))
        held = b""
        for piece in pieces:
            held += piece
            ready, held = held[:-TAG_BYTES], held[-TAG_BYTES:]
            yield reader.update(ready)
        try:
            yield reader.finalize_with_tag(held)
        except (InvalidTag, ValueError):
            raise PackageError(State.MODIFIED, f"{path!r} is not what was encrypted: get it anew") from None

    def _bound(self, path: str) -> bytes:
        return f"{ALGORITHM}\0{self.package}\0{path}".encode()


def lock(public: "RSAPublicKey", package: str) -> tuple[Cipher, Encryption]:
    """A cipher with a new key, and what only the holder of the private key can make it from again."""
    key = os.urandom(KEY_BYTES)
    return Cipher(key, package), Encryption(ALGORITHM, recipient_id(public), public.encrypt(key, _padding()))


def unlock(found: Encryption, private: "RSAPrivateKey | None", package: str) -> Cipher:
    """The cipher of a package.

    Raises:
        PackageError: WRONG_RECIPIENT with both keys, or MODIFIED.
    """
    if private is None:
        text = (
            f"it is encrypted to the key {found.recipient}, and this broker has none: make one with"
            " 'broker package keygen --recipient' and ask for a package that is encrypted to it"
        )
        raise PackageError(State.WRONG_RECIPIENT, text)
    own = recipient_id(private.public_key())
    if own != found.recipient:
        text = (
            f"it is encrypted to the key {found.recipient}, and the key of this broker is {own}: ask for a package"
            " that is encrypted to it"
        )
        raise PackageError(State.WRONG_RECIPIENT, text)
    try:
        key = private.decrypt(found.key, _padding())
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise PackageError(State.MODIFIED, f"its file key is not one that was encrypted to the key {own}: get it anew")
    return Cipher(key, package)


def _nonce(number: int) -> bytes:
    return number.to_bytes(12, "big")


def _padding() -> "OAEP":
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP

    return OAEP(MGF1(hashes.SHA256()), hashes.SHA256(), label=None)
