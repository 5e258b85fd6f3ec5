"""The grammar of `requires`, `parent` and `conflicts`: a plugin's name, and the versions of it that count."""

from dataclasses import dataclass

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from plugin_sdk.wire.subjects import BadSubject, check_name


@dataclass(frozen=True, slots=True)
class Need:
    """Another plugin, in some range of versions; an empty range admits every version."""

    name: str
    versions: SpecifierSet

    def admits(self, version: Version | None) -> bool:
        """Whether this version will do; None stands for one that nobody knows, which is not held against it."""
        return version is None or self.versions.contains(version, prereleases=True)

    def __str__(self) -> str:
        return f"{self.name}{self.versions}"


def parse_need(text: object) -> Need:
    """Reads a text such as `logger`, `logger>=1.0` or `logger>=1.0,<3`.

    Raises:
        ValueError: it is none; the text says how one is written.
    """
    if not isinstance(text, str):
        raise ValueError("expects a text such as 'logger>=1.0'")
    try:
        found = Requirement(text)
        name = check_name(found.name)
    except (InvalidRequirement, BadSubject):
        raise ValueError("expects a plugin's name and versions, such as 'logger' or 'logger>=1.0,<3'") from None
    if found.extras or found.url or found.marker:
        raise ValueError("expects a name and versions only, without extras, address or marker")
    return Need(name, found.specifier)
