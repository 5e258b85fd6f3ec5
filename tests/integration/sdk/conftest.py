"""Tests here may be coroutine functions, and get a broker process as the fixture `broker`."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.sdk.processes import BrokerProcess
from tests.unit.sdk.coroutines import pytest_pyfunc_call

__all__ = ["broker", "pytest_pyfunc_call"]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[BrokerProcess]:
    """A broker that answers, with heartbeats of a tenth of a second."""
    process = BrokerProcess(tmp_path / "home")
    process.start()
    yield process
    process.close()
