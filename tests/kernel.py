"""Marks for tests of what not every kernel can do.

Nobody can install what a kernel lacks. So such a test counts as one that is expected to fail there: a skipped one would
fail in CI, where nothing may be missing.
"""

import pytest

from broker.supervisor import bubblewrap, landlock


def needs(met: bool, reason: str) -> pytest.MarkDecorator:
    """A mark for a test that is run only when `met`; `reason` says why it is not."""
    return pytest.mark.xfail(not met, reason=reason, run=False)


def needs_landlock(version: int = 1) -> pytest.MarkDecorator:
    """A mark for a test that needs Landlock of at least this version."""
    found = landlock.version()
    return needs(found >= version, f"Landlock {version} is needed, this kernel has {found or 'none'}")


_trouble = bubblewrap.trouble()
needs_bubblewrap = needs(not _trouble, f"bubblewrap: {_trouble}")
