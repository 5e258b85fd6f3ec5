"""Runs for ever without a word to the broker."""

import signal

print("alive, and silent", flush=True)
signal.pause()
