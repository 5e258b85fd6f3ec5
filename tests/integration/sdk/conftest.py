"""Tests here may be coroutine functions, and get a broker process as the fixture `broker`."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.sdk.processes import BrokerProcess
from tests.unit.sdk.coroutines import pytest_pyfunc_call

__all__ = ["broker", "pytest_pyfunc_call", "shared_broker"]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[BrokerProcess]:
    """A broker that answers, with heartbeats of a tenth of a second."""
    process = BrokerProcess(tmp_path / "home")
    process.start()
    yield process
    process.close()


@pytest.fixture(scope="module")
def shared_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    """The same, for all tests of a module that leave it as it was."""
    process = BrokerProcess(tmp_path_factory.mktemp("shared") / "home")
    process.start()
    yield process
    process.close()
