"""What is in a recording, for people and programs."""

from __future__ import annotations

from collections import Counter
from typing import Any

from broker.recording.player import moment
from broker.recording.reader import Reader
from broker.recording.source import Source

SHOWN_SUBJECTS = 50
COUNTED_SUBJECTS = 100_000  # a bus may carry a subject for each of its users; memory is bounded all the same


def survey(source: Source) -> dict[str, Any]:
    """Read all of it and count, ready for JSON; subjects with most events first.

    Raises:
        RecordingError: a file can no longer be read.
    """
    subjects: Counter[str] = Counter()
    times: list[int] = []
    files = [_survey_one(reader, subjects, times) for reader in source.readers]
    shown = dict(subjects.most_common(SHOWN_SUBJECTS))
    return {
        "files": files,
        "events": sum(each["events"] for each in files),
        "from": moment(min(times)) if times else "",
        "to": moment(max(times)) if times else "",
        "subjects": shown,
        "further_subjects": len(subjects) - len(shown),
        "notes": source.notes,
        "problems": source.problems,
    }


def _survey_one(reader: Reader, subjects: Counter[str], times: list[int]) -> dict[str, Any]:
    events, last = 0, 0
    for record in reader:
        if not events:
            times.append(record.time_us)
        last = record.time_us
        events += 1
        if record.subject in subjects or len(subjects) < COUNTED_SUBJECTS:
            subjects[record.subject] += 1
    if events:
        times.append(last)
    end = reader.end or {}
    return {
        "file": str(reader.path),
        "recording": reader.header.id,
        "part": reader.header.part,
        "node": reader.header.node,
        "patterns": list(reader.header.patterns),
        "bytes": reader.size,
        "events": events,
        "ended": str(end.get("end", "")),
        "dropped": end.get("dropped", 0),
    }
