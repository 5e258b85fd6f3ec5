"""The dialogue as it stands in docs/PROTOCOL.md: every frame as a value and as bytes."""

from __future__ import annotations

import json
from typing import Any

from tools.protocol.dialogue import Line
from tools.protocol.values import unpack

BEGIN = "<!-- dialogue: made by tools/vectors, do not edit -->"
END = "<!-- end of the dialogue -->"
BYTES_A_LINE = 32


def insert(document: str, lines: list[Line]) -> str:
    """The document with its dialogue replaced; raises ValueError when the marks are missing."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"docs/PROTOCOL.md has no place for the dialogue: it needs the lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{_markdown(lines)}{END}{after}"


def _markdown(lines: list[Line]) -> str:
    """Remarks as paragraphs, the frames after each as one block."""
    paragraphs: list[str] = []
    for line in lines:
        if line.remark:
            paragraphs.append(f"\n{line.remark}\n\n```text\n")
        else:
            paragraphs[-1] += _frame(line)
    return "".join(f"{paragraph}```\n" for paragraph in paragraphs) + "\n"


def _frame(line: Line) -> str:
    step = BYTES_A_LINE
    rows = [line.frame[at : at + step].hex(" ") for at in range(0, len(line.frame), step)]
    return f"{line.sender} → {line.receiver}\n  {notation(unpack(line.frame))}\n" + "".join(f"    {r}\n" for r in rows)


def notation(value: Any) -> str:
    """A value as JSON, with bytes as h'hex' (the diagnostic notation of RFC 8949)."""
    if isinstance(value, bytes):
        return f"h'{value.hex()}'"
    if isinstance(value, list):
        return f"[{', '.join(map(notation, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)}: {notation(inner)}" for key, inner in value.items()) + "}"
    return "nil" if value is None else json.dumps(value, ensure_ascii=False)
