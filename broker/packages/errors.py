"""What can be wrong with a package, told apart so that a person knows what to do."""

from enum import StrEnum


class State(StrEnum):
    """How a package stands with the broker that looks at it."""

    VALID = "valid"
    # Nobody signed it; whether that will do is the operator's to say, plugin by plugin.
    UNSIGNED = "unsigned"
    # It is whole, and signed by somebody whom this broker does not trust.
    UNKNOWN_KEY = "unknown key"
    EXPIRED = "expired"
    # It is not what was signed, or not what its own manifest lists.
    MODIFIED = "modified"
    # The end is missing: nearly always a copy that is not done yet, or was cut off (vscode#173684).
    TRUNCATED = "truncated"
    # Unpacking it would write where it must not, or without bound.
    UNSAFE = "unsafe"
    WRONG_RECIPIENT = "wrong recipient"
    MALFORMED = "malformed"
    # There is nothing wrong with the package, but it cannot be installed here and now.
    REFUSED = "refused"


class PackageError(Exception):
    """A package is refused.

    Args:
        state: which kind of trouble it is.
        text: what is wrong and the way out.
    """

    def __init__(self, state: State, text: str) -> None:
        super().__init__(text if state is State.REFUSED else f"{state}: {text}")
        self.state = state
        self.text = text


class KeyFileError(Exception):
    """A key file cannot be used; the text names it and the way out."""
