"""The Python SDK of plugmesh: write a plugin, or talk to a mesh.

from plugin_sdk import Plugin, Event, connect
"""

from plugin_sdk.blocking import Blocking, connect_blocking
from plugin_sdk.calls import RequestFailed
from plugin_sdk.client import Bus, connect
from plugin_sdk.events import Event
from plugin_sdk.options import ServiceOptions, SubscribeOptions
from plugin_sdk.plugin import Plugin
from plugin_sdk.subscriptions import Subscription
from plugin_sdk.wire.errors import BusError, CallError, ConnectionLost, ProtocolError, RegistrationError

__all__ = [
    "Blocking",
    "Bus",
    "BusError",
    "CallError",
    "ConnectionLost",
    "Event",
    "Plugin",
    "ProtocolError",
    "RegistrationError",
    "RequestFailed",
    "ServiceOptions",
    "SubscribeOptions",
    "Subscription",
    "connect",
    "connect_blocking",
]
