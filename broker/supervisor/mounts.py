"""Where the services of plugins appear: under their own name, or under the chain of their parents' names (PLG-9)."""

from collections.abc import Mapping

from plugin_sdk.wire.limits import MAX_SUBJECT_BYTES, MAX_SUBJECT_TOKENS


def mount_points(parents: Mapping[str, str]) -> dict[str, str]:
    """The name under which each plugin serves; none for one that is its own ancestor.

    Args:
        parents: the parent of each plugin; empty for none.
    """
    mounts: dict[str, str] = {}
    for name in parents:
        path = _path(name, parents)
        if path:
            mounts[name] = ".".join(reversed(path))
    return mounts


def mount_too_deep(name: str, mount: str) -> str:
    """Why no service can be named under this mount; empty when one can."""
    if mount.count(".") + 1 < MAX_SUBJECT_TOKENS and len(mount) + 2 <= MAX_SUBJECT_BYTES:
        return ""
    limits = f"{MAX_SUBJECT_TOKENS} parts and {MAX_SUBJECT_BYTES} characters"
    return f"plugin {name!r} mounts on too many parents, as {mount}: a service's name has at most {limits}"


def _path(name: str, parents: Mapping[str, str]) -> list[str]:
    """The plugin and its ancestors, nearest first; nothing when they go round in a circle."""
    path = [name]
    while parent := parents.get(path[-1], ""):
        if parent in path:
            return []
        path.append(parent)
    return path
