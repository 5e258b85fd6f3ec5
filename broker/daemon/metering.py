"""The figures of a broker for those who look: what processes use, and the metrics endpoint."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from broker.config import Config
from broker.control.figures import add_usage, local_pids
from broker.telemetry.usage import Measured, Sampler

if TYPE_CHECKING:
    from broker.telemetry.endpoint import Endpoint

ANSWER_SECS = 2.0  # an event loop that takes longer is told to hang; Prometheus itself waits 10 s

log = logging.getLogger("broker.metrics")


class Metering:
    """What is measured, and where it can be read.

    Args:
        document: what `$broker.status` says, but for what processes use; called on the event loop.
        always: the figures that need no event loop; called on any thread.
    """

    def __init__(self, document: Callable[[], dict[str, Any]], always: Callable[[], dict[str, Any]]) -> None:
        self._document = document
        self._always = always
        self._sampler = Sampler()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._endpoint: Endpoint | None = None
        self._place: tuple[str, int] | None = None
        self.warnings: list[str] = []

    def configure(self, config: Config) -> None:
        """Open the endpoint, move it, or close it, as the settings say; for the event loop.

        A port that cannot be had is a warning, in the log and in `broker status`: the mesh is worth more than its
        figures.
        """
        settings = config.plugin_manager
        wanted = (settings.metrics_address, settings.metrics_port) if settings.enable_metrics else None
        if wanted == self._place and not self.warnings:
            return
        self.close()
        self._place, self.warnings = wanted, []
        if wanted is None:
            return
        # Not at the top: http.server alone is a megabyte.
        from broker.telemetry.endpoint import Endpoint, EndpointUnusable

        self._loop = asyncio.get_running_loop()
        try:
            self._endpoint = Endpoint(*wanted, self._page)
        except EndpointUnusable as error:
            text = f"no metrics: {error}; choose another port with plugin_manager.metrics_port and reload"
            self.warnings = [text]
            log.warning("%s", text)
            return
        log.info("metrics at %s", self._endpoint.url)

    def close(self) -> None:
        """Close the endpoint."""
        if self._endpoint is not None:
            self._endpoint.close()
            self._endpoint = None

    async def usage(self, pids: Collection[int]) -> Measured:
        """What the processes of the broker and of plugins use."""
        return await asyncio.to_thread(self._sampler.read, pids)

    def _page(self, accept: str) -> tuple[bytes, str]:
        """The metrics; on a thread of the endpoint."""
        from broker.telemetry.metrics import encode

        status = self._always()
        try:
            document = self._ask_loop()
        except (TimeoutError, RuntimeError):
            return encode({**status, "responding": False}, accept)
        add_usage(document, self._sampler.read(local_pids(document)))
        return encode({**status, **document, "responding": True}, accept)

    def _ask_loop(self) -> dict[str, Any]:
        """The document, made on the event loop; raises TimeoutError or RuntimeError when that does not run."""
        answer: Future[dict[str, Any]] = Future()

        def make() -> None:
            if answer.set_running_or_notify_cancel():
                try:
                    answer.set_result(self._document())
                except Exception as error:  # noqa: BLE001 - whoever asked gets it
                    answer.set_exception(error)

        if self._loop is None:
            raise RuntimeError("there is no event loop yet")
        self._loop.call_soon_threadsafe(make)
        try:
            return answer.result(ANSWER_SECS)
        finally:
            answer.cancel()
