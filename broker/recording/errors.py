"""What can be wrong with a recording."""


class RecordingError(Exception):
    """A recording cannot be written or read; the text names the file, the reason and the way out."""
