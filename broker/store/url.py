"""Database URLs as they may be shown: without the password."""

import re

# Greedy up to the last "@", because a password that was not percent-encoded may hold one itself.
_LOGIN = re.compile(r"(//[^:/@]*):.*@", re.DOTALL)
# `//user:password` with the host forgotten; a number after the colon is a port.
_NO_HOST = re.compile(r"(//[^:/@]*):(?!\d*(?:[/?]|$))[^/?]*")
_NO_SCHEME = re.compile(r"^([^:@]*):.*@", re.DOTALL)
_OPTION = re.compile(r"([?&](?:password|passwd|pwd)=)[^&]*", re.IGNORECASE)


def masked(url: str) -> str:
    """Return `url` with every password in it replaced by `***`, malformed URLs included."""
    if "//" not in url:
        return _NO_SCHEME.sub(r"\1:***@", url)
    shown, logins = _LOGIN.subn(r"\1:***@", url)
    if not logins:
        shown = _NO_HOST.sub(r"\1:***", shown)
    return _OPTION.sub(r"\1***", shown)
