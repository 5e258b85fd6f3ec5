"""Key files: Ed25519 pairs of those who make packages, the RSA pair of a broker, and whom a broker trusts.

Files are PEM, as openssl reads and writes them. A key is named in texts by its id: the first 16 hexadecimal digits
of the SHA-256 of its public part.
"""

import base64
import binascii
import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from broker.packages.errors import KeyFileError
from plugin_sdk.wire.subjects import check_name

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

# OAEP with less is below what NIST SP 800-57 asks for beyond 2030.
RSA_BITS = 3072
MAX_KEY_BYTES = 16 * 1024

# An Ed25519 public key in DER is this and its 32 bytes: RFC 8410, section 4.
_ED25519_HEAD = bytes.fromhex("302a300506032b6570032100")
_PEM = re.compile(rb"-----BEGIN PUBLIC KEY-----\s+([A-Za-z0-9+/=\s]+?)\s*-----END PUBLIC KEY-----\s*")


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A public key by which packages are accepted, under the name that its file has."""

    name: str
    raw: bytes

    @property
    def key_id(self) -> str:
        """How it is named in signatures."""
        return key_id(self.raw)


def key_id(public: bytes) -> str:
    """The id of a key by its public part: 32 bytes of Ed25519, the DER of RSA."""
    return hashlib.sha256(public).hexdigest()[:16]


def read_trusted(folder: Path) -> tuple[dict[str, TrustedKey], list[str]]:
    """Every `NAME.pub` of a folder by key id, and what is wrong with those that cannot be used."""
    found: dict[str, TrustedKey] = {}
    problems: list[str] = []
    for file in sorted(folder.glob("*.pub")):
        try:
            key = TrustedKey(file.stem, read_public(file))
            found[key.key_id] = key
        except KeyFileError as error:
            problems.append(str(error))
    return found, problems


def read_public(file: Path) -> bytes:
    """The 32 bytes of an Ed25519 public key; raises KeyFileError. Needs no cryptography, so that a start is quick."""
    match = _PEM.fullmatch(_read(file))
    try:
        der = base64.b64decode(match[1]) if match else b""
    except binascii.Error:
        der = b""
    if len(der) != len(_ED25519_HEAD) + 32 or not der.startswith(_ED25519_HEAD):
        raise KeyFileError(f"{file} holds no Ed25519 public key in PEM: it is the .pub file of 'broker package keygen'")
    return der[len(_ED25519_HEAD) :]


def trust(folder: Path, name: str, public: Path) -> TrustedKey:
    """Puts a public key among the trusted ones; raises KeyFileError for a file that is none."""
    key = TrustedKey(check_name(name), read_public(public))
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write(folder / f"{name}.pub", public.read_bytes(), 0o644)
    return key


def make_signing_pair(folder: Path, name: str) -> tuple[Path, Path]:
    """Makes `NAME.key` and `NAME.pub`, Ed25519; returns the files. Raises KeyFileError if they are there."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return _save_pair(folder / check_name(name), Ed25519PrivateKey.generate())


def make_recipient_pair(file: Path) -> tuple[Path, Path]:
    """Makes the RSA pair of a broker, `file` and beside it `.pub`; raises KeyFileError if they are there."""
    from cryptography.hazmat.primitives.asymmetric import rsa

    return _save_pair(file.with_suffix(""), rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS))


def read_signing(file: Path) -> "Ed25519PrivateKey":
    """The private key that signs packages; raises KeyFileError."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = _load_private(file)
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError(
            f"{file} is not an Ed25519 key: packages are signed with the .key of 'broker package keygen'"
        )
    return key


def read_recipient(file: Path) -> "RSAPrivateKey | None":
    """The private RSA key of the broker, None when it has none; raises KeyFileError."""
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    if not file.exists():
        return None
    key = _load_private(file)
    if not isinstance(key, RSAPrivateKey):
        raise KeyFileError(f"{file} is not an RSA key: make one with 'broker package keygen --recipient'")
    return key


def read_recipient_public(file: Path) -> "RSAPublicKey":
    """The public RSA key of a broker that packages are encrypted to; raises KeyFileError."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(_read(file))
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, RSAPublicKey) or key.key_size < RSA_BITS:
        raise KeyFileError(f"{file} holds no RSA public key of {RSA_BITS} bits or more in PEM")
    return key


def recipient_id(public: "RSAPublicKey") -> str:
    """The id of an RSA key."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key_id(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def names_of(keys: Mapping[str, TrustedKey]) -> str:
    """The trusted keys for a text."""
    return ", ".join(sorted(f"{key.name} ({number})" for number, key in keys.items())) or "none"


def _load_private(file: Path) -> object:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        return load_pem_private_key(_read(file), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise KeyFileError(f"{file} holds no private key in PEM without a passphrase") from None


def _save_pair(stem: Path, private: "Ed25519PrivateKey | RSAPrivateKey") -> tuple[Path, Path]:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    secret, public = stem.with_name(f"{stem.name}.key"), stem.with_name(f"{stem.name}.pub")
    for file in (secret, public):
        if file.exists():
            raise KeyFileError(
                f"{file} exists already: what it has signed or unlocked would be lost with it; move it away"
            )
    _write(secret, private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)
    _write(public, private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), 0o644)
    return secret, public


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as source:
            return source.read(MAX_KEY_BYTES)
    except OSError as error:
        raise KeyFileError(f"{file} cannot be read: {error.strerror}") from None


def _write(file: Path, content: bytes, mode: int) -> None:
    """Never half, and never readable for others before it has its mode."""
    draft = file.with_name(f".{file.name}.part")
    try:
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as out:
            out.write(content)
        draft.replace(file)
    except OSError as error:
        raise KeyFileError(f"{file} cannot be written: {error.strerror}") from None
