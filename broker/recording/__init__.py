"""Recordings of what passes on the bus: one file format, a writer, a reader, and the two clients that use them."""

from broker.recording.errors import RecordingError

__all__ = ["RecordingError"]
