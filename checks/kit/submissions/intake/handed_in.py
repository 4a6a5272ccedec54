"""When something was handed in, as far as the submission itself says; a learner could write another time into it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime

from checks.kit.submissions.intake.source import MAX_FILE_BYTES, Entry, Source, is_lesson, plausible
from checks.kit.submissions.model import HandedIn

ABOUT = "submission.json"
"""What the .zip of `workbook submit` says of itself, beside the folder `lessons`."""

PACKED = "packed by workbook submit"
COMMITTED = "last commit"
NEWEST_FILE = "newest file"


def handed_in(source: Source) -> HandedIn | None:
    """By `submission.json`, else by the last commit, else by the newest file of a lesson; None if none of them says."""
    entries = list(source.entries())
    if at := _packed_at(source, entries):
        return HandedIn(at, PACKED)
    if at := source.committed():
        return HandedIn(at, COMMITTED)
    times = [entry.modified for entry in entries if entry.modified and _in_a_lesson(entry)]
    return HandedIn(max(times), NEWEST_FILE) if times else None


def _packed_at(source: Source, entries: Iterable[Entry]) -> datetime | None:
    chosen = [entry for entry in entries if entry.path == ABOUT and not entry.kind and entry.size <= MAX_FILE_BYTES]
    if len(chosen) != 1:
        return None
    [content] = source.contents(chosen)
    try:
        return plausible(datetime.fromisoformat(json.loads(content.data)["packed_at"]))
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _in_a_lesson(entry: Entry) -> bool:
    return any(is_lesson(name) for name in entry.path.split("/")[:-1])
