"""CURVE keys, made here because this is where ZeroMQ is known."""

from __future__ import annotations

import zmq


def new_pair() -> tuple[str, str]:
    """A fresh key pair, public and secret, Z85."""
    public, secret = zmq.curve_keypair()
    return public.decode("ascii"), secret.decode("ascii")
