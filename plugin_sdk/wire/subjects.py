"""The grammar of subjects, patterns, service names and plugin names.

A subject is 1 to 16 tokens joined by dots, at most 256 bytes; a token is one or more printable ASCII characters
other than space, dot, `*` and `>`. A first token that begins with `$` is reserved for the broker. In a pattern the
token `*` stands for exactly one token and a last token `>` for one or more; neither stands for a reserved first token.
"""

from __future__ import annotations

import re

from plugin_sdk.wire.errors import BusError
from plugin_sdk.wire.limits import MAX_NAME_BYTES, MAX_SUBJECT_BYTES, MAX_SUBJECT_TOKENS

_TOKEN = r"[!-)+-\-/-=?-~]+"
_SUBJECT = re.compile(rf"{_TOKEN}(?:\.{_TOKEN})*")
_PATTERN = re.compile(rf"(?:\*|{_TOKEN})(?:\.(?:\*|{_TOKEN}))*(?:\.>)?|>")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


class BadSubject(BusError):
    """A subject, pattern or name breaks the grammar."""

    def __init__(self, text: str, code: str = "bad_subject") -> None:
        super().__init__(code, text)


def check_subject(subject: str) -> str:
    """Return `subject`; raise BadSubject unless it may be published to or called."""
    return _check(subject, _SUBJECT, "subject")


def check_pattern(pattern: str) -> str:
    """Return `pattern`; raise BadSubject unless it may be subscribed to."""
    return _check(pattern, _PATTERN, "pattern")


def check_name(name: str) -> str:
    """Return `name`; raise BadSubject unless a plugin, client, group or instance may be called so."""
    if len(name) > MAX_NAME_BYTES or not _NAME.fullmatch(name):
        raise BadSubject(
            f"name {name[:80]!r} is not allowed: a letter, then letters, digits, '_' or '-', at most {MAX_NAME_BYTES}",
            "bad_name",
        )
    return name


def is_reserved(subject: str) -> bool:
    """Whether the subject, pattern or service belongs to the broker."""
    return subject.startswith("$")


def matches(pattern: str, subject: str) -> bool:
    """Whether a valid pattern covers a valid subject: the reference that every faster matcher is tested against."""
    wanted, tokens = pattern.split("."), subject.split(".")
    if subject.startswith("$") and wanted[0] in ("*", ">"):
        return False
    if wanted[-1] == ">":
        wanted = wanted[:-1]
        if len(tokens) <= len(wanted):
            return False
        tokens = tokens[: len(wanted)]
    return len(wanted) == len(tokens) and all(w in ("*", t) for w, t in zip(wanted, tokens, strict=True))


def covers(wide: str, narrow: str) -> bool:
    """Whether every subject that the valid pattern `narrow` covers is covered by the valid pattern `wide` too."""
    wanted, tokens = wide.split("."), narrow.split(".")
    if tokens[0].startswith("$") and wanted[0] in ("*", ">"):
        return False
    open_ended = wanted[-1] == ">"
    if open_ended:
        wanted.pop()
    if len(tokens) <= len(wanted) if open_ended else len(tokens) != len(wanted):
        return False
    return all(w == t or (w == "*" and t != ">") for w, t in zip(wanted, tokens, strict=False))


def _check(text: str, grammar: re.Pattern[str], what: str) -> str:
    if len(text) > MAX_SUBJECT_BYTES:
        raise BadSubject(f"{what} {text[:40]!r}… has {len(text)} characters, the limit is {MAX_SUBJECT_BYTES}")
    if text.count(".") >= MAX_SUBJECT_TOKENS:
        raise BadSubject(f"{what} {text!r} has more than {MAX_SUBJECT_TOKENS} tokens")
    if not grammar.fullmatch(text):
        raise BadSubject(f"{what} {text!r} is not allowed: {_explain(text, what)}")
    return text


def _explain(text: str, what: str) -> str:
    tokens = text.split(".")
    if not text or "" in tokens:
        return "a token is empty"
    if what == "pattern" and ">" in tokens[:-1]:
        return "'>' stands only for the last tokens"
    for token in tokens:
        if token in ("*", ">"):
            if what == "subject":
                return f"wildcard {token!r} is for subscriptions only"
        elif "*" in token or ">" in token:
            return f"a wildcard must be a whole token, not part of {token!r}"
        elif not re.fullmatch(_TOKEN, token):
            return f"token {token!r} holds a character that is not printable ASCII, or a space"
    return "it breaks the grammar"
