"""Lets test functions be coroutine functions: import `pytest_pyfunc_call` in a conftest.py."""

import asyncio
from collections.abc import Callable
from inspect import iscoroutinefunction

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if not iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True


async def until(condition: Callable[[], object], timeout: float = 5.0) -> None:
    """Return once the condition holds; fails after `timeout` seconds."""
    async with asyncio.timeout(timeout):
        # What is waited for happens in other threads and processes, which set no asyncio.Event.
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.002)
