"""One fuzzing process: `python -m tools.fuzzing.worker TARGET [options of libFuzzer]`. It ends when libFuzzer does."""

from __future__ import annotations

import logging
import sys
from importlib import import_module
from typing import Any


def main() -> None:
    """Fuzz one target."""
    name, *options = sys.argv[1:]
    atheris: Any = import_module("atheris")
    logging.disable(logging.CRITICAL)
    # What is not in it yet is imported with counters at its branches; the rest, msgspec too, is a black box.
    with atheris.instrument_imports(include=["broker", "plugin_sdk"]):
        targets = import_module("tests.fuzzing.targets").TARGETS
    atheris.Setup([sys.argv[0], *options], targets[name].check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
