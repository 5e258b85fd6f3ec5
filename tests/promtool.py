"""Prometheus' own tool for checking metrics and rules, where it is installed."""

import shutil

import pytest


@pytest.fixture(scope="session")
def promtool() -> str:
    """Its path; tests that need it are not made without it."""
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed: it is in Debian's package prometheus")
    return found
