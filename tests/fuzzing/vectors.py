"""The test vectors of the protocol, as bytes to begin with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_FILE = Path(__file__).parents[2] / "plugin_sdk" / "wire" / "vectors.json"
_LONGEST = 4096  # bytes; nothing is learnt from long ones that short ones do not teach


def frames(*kinds: str) -> Iterator[bytes]:
    """The frames of the vectors that are `good` or `bad`."""
    vectors: Any = json.loads(_FILE.read_text())["frames"]
    for vector in (each for kind in kinds for each in vectors[kind]):
        pieces = [(vector["hex"], 1)] if "hex" in vector else vector["parts"]
        data = b"".join(bytes.fromhex(piece) * times for piece, times in pieces)
        if len(data) <= _LONGEST:
            yield data
