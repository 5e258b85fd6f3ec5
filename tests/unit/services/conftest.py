"""Tests of the shipped services may be coroutine functions."""

from tests.unit.sdk.coroutines import pytest_pyfunc_call

__all__ = ["pytest_pyfunc_call"]
