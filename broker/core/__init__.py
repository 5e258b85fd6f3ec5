"""The core of the broker: pure decisions, no I/O. See router.py."""

from broker.core.router import Router

__all__ = ["Router"]
