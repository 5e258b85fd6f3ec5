"""Starts the generator: `python -m tools.protocol`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tools.protocol import dialogue, render, vectors

ROOT = Path(__file__).parents[2]
VECTORS = ROOT / "plugin_sdk" / "wire" / "vectors.json"
TEXT = ROOT / "docs" / "PROTOCOL.md"


def main() -> int:
    """Write what is out of date, or with --check only name it; returns the exit status."""
    parser = argparse.ArgumentParser(prog="tools/vectors", description="Makes the test vectors and the dialogue.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when something is out of date")
    check: bool = parser.parse_args().check
    stale = {path: text for path, text in _wanted().items() if not path.exists() or path.read_text() != text}
    for path, text in stale.items():
        if not check:
            path.write_text(text)
        print(f"{path.relative_to(ROOT)} {'is out of date: run tools/vectors' if check else 'written'}")
    return 1 if check and stale else 0


def _wanted() -> dict[Path, str]:
    return {VECTORS: vectors.text(), TEXT: render.insert(TEXT.read_text(), dialogue.play())}


if __name__ == "__main__":
    sys.exit(main())
