"""A figure in the decisions names the command that makes it, or is not there."""

import re
from pathlib import Path

DECISIONS = Path(__file__).parents[2] / "docs" / "decisions.md"

# Amounts of something that is measured, in figures or in words.
AMOUNT = re.compile(
    r"\b\d[\d.,]*\s*(?:MB|MiB|KiB|ms|µs|s|x|%|k)(?!\w)"
    r"|\b(?:micro|milli)seconds?\b"
    r"|\b(?:twice|three times|half) (?:as|the)\b"
)
COMMAND = re.compile(r"`(?:tools/|python )[^`]+`")


def test_every_figure_of_the_decisions_names_its_command() -> None:
    entries = re.split(r"\n(?=\* |#)", DECISIONS.read_text(encoding="utf-8"))
    assert len(entries) > 20
    bare = [entry for entry in entries if AMOUNT.search(entry) and not COMMAND.search(entry)]
    assert not bare, "\n".join(bare)
