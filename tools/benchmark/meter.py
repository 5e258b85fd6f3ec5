"""CPU time of a measurement: of a machine that does other things, too, it tells more than the time on the clock."""

from collections.abc import Iterable

from tools.benchmark.roles.pipe import Report
from tools.benchmark.systems.base import System


class Meter:
    """The CPU time, user and system, that the server and all endpoints of one system spend on each measurement.

    What a server does between two measurements counts for the later one: it may put things off, such as sending spans.

    Args:
        system: what is measured.
    """

    def __init__(self, system: System) -> None:
        self._system = system
        self._server_ns = system.cpu_ns()
        self._endpoints_ns = 0

    def note(self, reports: Iterable[Report]) -> None:
        """Add what these endpoints have spent."""
        self._endpoints_ns += sum(report.cpu_ns for report in reports)

    def read(self) -> int:
        """The nanoseconds spent since it was read last."""
        endpoints, self._endpoints_ns = self._endpoints_ns, 0
        before, self._server_ns = self._server_ns, self._system.cpu_ns()
        return endpoints + self._server_ns - before
