"""Proof at start-up that TCP is closed to unknown keys."""

from __future__ import annotations

import zmq
from zmq.utils.monitor import recv_monitor_message

REFUSED = zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL


def unknown_key_is_refused(endpoint: str, server_key: bytes, timeout: float = 5.0) -> bool:
    """Connect once with a key made for this purpose, and report whether the broker refused it.

    Blocks, so it runs on another thread than the event loop that serves the ZAP handler.

    Args:
        endpoint: the bound TCP endpoint.
        server_key: the broker's public CURVE key, Z85.
        timeout: seconds to wait for a verdict; no verdict counts as not refused.
    """
    public, secret = zmq.curve_keypair()
    with zmq.Context() as context, context.socket(zmq.DEALER) as probe:
        probe.linger = 0
        probe.curve_publickey, probe.curve_secretkey, probe.curve_serverkey = public, secret, server_key
        monitor = probe.get_monitor_socket(REFUSED | zmq.EVENT_HANDSHAKE_SUCCEEDED)
        try:
            probe.connect(endpoint)
            if not monitor.poll(round(timeout * 1000)):
                return False
            return recv_monitor_message(monitor)["event"] != zmq.EVENT_HANDSHAKE_SUCCEEDED
        finally:
            probe.disable_monitor()
            monitor.close(linger=0)
