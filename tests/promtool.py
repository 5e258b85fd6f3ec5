"""Prometheus' own tool for checking metrics and rules, where it is installed."""

import os
import shutil

import pytest


@pytest.fixture(scope="session")
def promtool() -> str:
    """Its path; tests that need it are not made without it, in CI neither: it comes with a whole Prometheus."""
    found = shutil.which("promtool")
    if found is None:
        leave = pytest.xfail if os.environ.get("CI") else pytest.skip
        leave("promtool is not installed: it is in Debian's package prometheus")
    return found
