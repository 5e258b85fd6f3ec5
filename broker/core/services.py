"""The service registry: which instances serve a name, which of them is next, who waits for one."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from broker.core.backlog import Backlog
from broker.core.sessions import Instance, Pending, Session


class Service:
    """One service name with its instances and the requests that wait for one."""

    __slots__ = ("_backlog", "instances", "name", "waiting")

    def __init__(self, name: str, backlog: Backlog) -> None:
        self.name = name
        self._backlog = backlog
        self.instances: list[Instance] = []
        self.waiting: dict[int, Pending] = {}  # in order of arrival, by request number

    def enqueue(self, pending: Pending) -> None:
        """Let a request wait for an instance with room."""
        # A copy: the Raw would keep the caller's whole frame alive for as long as this waits.
        pending.payload = pending.payload.copy()
        size = len(memoryview(pending.payload))
        pending.caller.held += size
        self._backlog.size += size
        self.waiting[pending.id] = pending

    def dequeue(self) -> Pending:
        """Take the request that has waited longest."""
        pending = next(iter(self.waiting.values()))
        self.leave(pending)
        return pending

    def leave(self, pending: Pending) -> None:
        """A request waits no longer, if it did."""
        if self.waiting.pop(pending.id, None) is not None:
            size = len(memoryview(pending.payload))
            pending.caller.held -= size
            self._backlog.size -= size

    def choose(self) -> Instance | None:
        """The instance with the fewest outstanding requests, the least used among equals; None when all are full."""
        instances = self.instances
        if len(instances) == 1:
            only = instances[0]
            return only if only.outstanding < only.limit else None
        free = [each for each in instances if each.outstanding < each.limit]
        return min(free, key=_load) if free else None


class Services:
    """All services by name. A service without instances stays while somebody waits for it."""

    def __init__(self, backlog: Backlog) -> None:
        self._backlog = backlog
        self._services: dict[str, Service] = {}
        # The service of that name, with or without instances, or None. Every request asks twice: no method around it.
        self.get: Callable[[str], Service | None] = self._services.get

    def obtain(self, name: str) -> Service:
        """The same, made when it is new."""
        service = self._services.get(name)
        if service is None:
            service = self._services[name] = Service(name, self._backlog)
        return service

    def add(self, name: str, instance: Instance) -> Service:
        """Put an instance behind a name."""
        service = self.obtain(name)
        service.instances.append(instance)
        return service

    def holder(self, name: str) -> Session | None:
        """A session that serves this name, if one does."""
        service = self._services.get(name)
        return service.instances[0].session if service is not None and service.instances else None

    def remove(self, name: str, instance: Instance) -> Service | None:
        """Take an instance away; returns its service."""
        service = self._services.get(name)
        if service is not None and instance in service.instances:
            service.instances.remove(instance)
        return service

    def prune(self, service: Service) -> None:
        """Forget a service that nobody serves and nobody waits for."""
        if not service.instances and not service.waiting:
            self._services.pop(service.name, None)

    def __iter__(self) -> Iterator[Service]:
        return iter(self._services.values())


def _load(instance: Instance) -> tuple[int, int]:
    return instance.outstanding, instance.served
