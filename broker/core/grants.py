"""What a plugin was granted: patterns of subjects and services for each verb, and verdicts that are remembered."""

from __future__ import annotations

from msgspec import Struct

from plugin_sdk.wire.subjects import check_subject, covers, matches

_REMEMBERED = 10_000  # names for each session and verb


class Permissions(Struct, frozen=True):
    """What one plugin may do: patterns for each verb, None for everything that is not reserved.

    `offer` narrows the services under its own name, which a plugin may serve anyway.
    """

    publish: tuple[str, ...] | None = None
    subscribe: tuple[str, ...] | None = None
    call: tuple[str, ...] | None = None
    offer: tuple[str, ...] | None = None

    def narrowed(self) -> dict[str, list[str]]:
        """The verbs that are not free, with their patterns: what REGISTERED tells."""
        granted = {verb: getattr(self, verb) for verb in self.__struct_fields__}
        return {verb: list(patterns) for verb, patterns in granted.items() if patterns is not None}

    def may_subscribe(self, pattern: str) -> bool:
        """Whether one granted pattern covers everything that `pattern` does."""
        return self.subscribe is None or any(covers(granted, pattern) for granted in self.subscribe)


UNRESTRICTED = Permissions()


class Verdicts(dict[str, bool]):
    """Whether one of the patterns covers a name. The path of an event asks this dictionary once.

    Asking for a name that breaks the grammar raises BadSubject.
    """

    def __init__(self, patterns: tuple[str, ...]) -> None:
        super().__init__()
        self._patterns = patterns

    def __missing__(self, name: str) -> bool:
        check_subject(name)
        if len(self) >= _REMEMBERED:
            self.clear()
        verdict = self[name] = any(matches(pattern, name) for pattern in self._patterns)
        return verdict


def verdicts(patterns: tuple[str, ...] | None) -> Verdicts | None:
    """The verdicts of these patterns, or None when everything is free, which then costs nothing."""
    return None if patterns is None else Verdicts(patterns)
