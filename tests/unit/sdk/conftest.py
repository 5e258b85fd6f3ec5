"""Tests here may be coroutine functions, and get a mesh in memory as the fixture `mesh`."""

from plugin_sdk.testing import mesh_fixture
from tests.unit.sdk.coroutines import pytest_pyfunc_call

__all__ = ["mesh_fixture", "pytest_pyfunc_call"]
