"""Who signed a package, and whether the broker may believe it (PKG-2)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import msgspec
from msgspec import Struct

from broker.packages.errors import PackageError, State
from broker.packages.keys import TrustedKey, key_id, names_of

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


class Signature(Struct, frozen=True, forbid_unknown_fields=True):
    """The content of the signature file.

    Args:
        key: id of the key that signed.
        signature: over the manifest's bytes as they stand in the package.
    """

    algorithm: Literal["Ed25519"]
    key: str
    signature: bytes


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the signature of a package is worth.

    Args:
        state: VALID, UNSIGNED or UNKNOWN_KEY.
        key: id of the key that signed, "" when none did.
        signer: the name under which that key is trusted, "" when it is not.
        text: why it is not valid and the way out.
    """

    state: State
    key: str = ""
    signer: str = ""
    text: str = ""


def sign(manifest: bytes, key: "Ed25519PrivateKey") -> bytes:
    """The content of the signature file for the bytes of a manifest."""
    public = key.public_key().public_bytes_raw()
    made = Signature("Ed25519", key_id(public), key.sign(manifest))
    return msgspec.json.format(msgspec.json.encode(made), indent=1) + b"\n"


def judge(manifest: bytes, signature: bytes | None, trusted: Mapping[str, TrustedKey]) -> Verdict:
    """Checks the signature of a manifest against the trusted keys.

    Raises:
        PackageError: MODIFIED when a trusted key did not sign these bytes, MALFORMED for a file that is no signature.
    """
    if signature is None:
        return Verdict(State.UNSIGNED, text="nobody has signed it: sign it with 'broker package sign'")
    found = _read(signature)
    known = trusted.get(found.key)
    if known is None:
        text = (
            f"it is signed with the key {found.key}, which is not trusted here; trusted are {names_of(trusted)}: if you"
            " trust its maker, add the public key with 'broker package trust'"
        )
        return Verdict(State.UNKNOWN_KEY, found.key, text=text)
    _verify(manifest, found, known)
    return Verdict(State.VALID, found.key, known.name)


def _verify(manifest: bytes, found: Signature, known: TrustedKey) -> None:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(known.raw).verify(found.signature, manifest)
    except InvalidSignature:
        text = f"its manifest is not the one that {known.name} ({found.key}) signed: get it anew from its maker"
        raise PackageError(State.MODIFIED, text) from None


def _read(signature: bytes) -> Signature:
    try:
        return msgspec.json.decode(signature, type=Signature)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise PackageError(State.MALFORMED, f"its signature cannot be read: {error}") from None
