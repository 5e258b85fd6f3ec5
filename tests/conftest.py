"""What holds for every test.

A test may be a coroutine function. In CI a skipped test is a failed one, because there nothing may be missing.
"""

import asyncio
import os
import signal
import warnings
from collections.abc import Generator
from inspect import iscoroutinefunction
from pathlib import Path

import pytest
from coverage.exceptions import CoverageWarning

TESTS = Path(__file__).parent
Outcome = pytest.TestReport | pytest.CollectReport


def _refuse_skip(report: Outcome) -> Outcome:
    if os.environ.get("CI") and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not accept: {report.longrepr}"
    return report


def pytest_configure() -> None:
    # A test that kills a process which is just writing down what it covered leaves half a file, or an empty one. That
    # says something of the measurement and nothing of the product, so it is shown and is no error.
    warnings.simplefilter("default", CoverageWarning)
    # A script starts what goes into its background deaf to SIGINT, and deaf would be all that the tests start.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _refuse_skip(report)
    return report


@pytest.fixture(autouse=True)
def _unmeasured_children(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Coverage follows child processes, and imports much in them: too much for tests of what an import costs."""
    if request.path.relative_to(TESTS).parts[0] in ("unit", "architecture"):
        monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if not iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True
