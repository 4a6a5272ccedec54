"""What every kind of submission (folder, .zip, git bundle) can be asked, and how much of it is read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

MAX_SUBMISSION_BYTES = 20_000_000
"""Bytes read from one submission; a lesson as it is handed out has about 30,000."""

MAX_SUBMISSION_FILES = 2_000
"""Files read from one submission; all lessons as they are handed out have about 130."""

MAX_FILE_BYTES = 2_000_000
"""Bytes of one file."""

MAX_PATH_BYTES = 200
"""Bytes of a file's path below its lesson's folder, in UTF-8."""

MAX_ENTRIES = 50_000
"""Files and folders looked at in one submission; what `ignored` names is not entered and not counted."""

OTHER_FOLDERS = frozenset({"solutions", "checks", "notebooks", "node_modules", "__pycache__", "__MACOSX"})
"""Folders of a fork in which no lesson is looked for, besides those whose name begins with a dot."""


class SubmissionUnreadable(Exception):
    """Nothing of a submission can be graded. The message is a note for the instructor."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Something in a submission that is not a folder.

    `path` is relative to the submission, with `/`. `size` is in bytes, as the submission states it, which may be
    wrong. `kind` is empty for a regular file, else "a symbolic link" and the like. `trouble` says why the entry
    cannot be read ("it is encrypted"), and is empty if it can. `modified` is in UTC, and None where nothing says it.
    """

    path: str
    size: int = 0
    kind: str = ""
    trouble: str = ""
    modified: datetime | None = None


@dataclass(frozen=True, slots=True)
class Content:
    """What was read of an entry: at most MAX_FILE_BYTES + 1 bytes, or `trouble`, the reason why it cannot be read."""

    path: str
    data: bytes = b""
    trouble: str = ""


class Source(Protocol):
    """A submission of one kind. All methods raise SubmissionUnreadable if the submission as a whole is unusable."""

    def entries(self) -> Iterable[Entry]:
        """Everything but folders, in any order; an entry that is there twice comes twice."""

    def contents(self, chosen: Sequence[Entry]) -> Iterator[Content]:
        """The contents of the chosen entries, in their order: regular files, no path twice."""

    def committed(self) -> datetime | None:
        """When the last commit was made that is read, in UTC; None where there are no commits. Call `entries` first."""


OLDEST = datetime(2000, 1, 1, tzinfo=UTC)
"""A file that claims to be older has no time: programs that leave it out write 1970 or 1980."""


def moment(seconds: float) -> datetime | None:
    """The time so many seconds after 1970; None if it cannot be that of somebody's work."""
    try:
        return plausible(datetime.fromtimestamp(int(seconds), UTC))
    except (OverflowError, ValueError, OSError):
        return None


def plausible(time: datetime) -> datetime | None:
    """The time in UTC, without fractions of a second; None if it names no time zone or is too old."""
    try:
        time = time.astimezone(UTC) if time.tzinfo else OLDEST
    except (OverflowError, ValueError):
        return None
    return time.replace(microsecond=0) if time > OLDEST else None


LESSON = re.compile(r"lesson[ _-]?0*([0-9]{1,2})(?![0-9])([ _(-].*)?", re.IGNORECASE | re.DOTALL)
"""How learners name a lesson's folder: `lesson_03`, `Lesson 3`, `lesson_03_done`, `lesson_03 (1)`."""


def lesson_of(name: str) -> str:
    """The lesson, as `lesson_03`, that a folder of this name holds; "" if it holds none."""
    match = LESSON.fullmatch(name)
    return f"lesson_{int(match[1]):02}" if match else ""


def is_lesson(name: str) -> bool:
    """Whether a folder of this name holds a lesson."""
    return bool(lesson_of(name))


def ignored(path: str) -> bool:
    """Whether a path is left out without a note: hidden files, and what tools and the workbook put there.

    Within a lesson, folders called `checks` or `solutions` are the learner's own.
    """
    inside_lesson = False
    for name in path.split("/"):
        if name.startswith(".") and name not in (".", "..", ".dockerignore"):
            return True
        if name in ("node_modules", "__pycache__") or (not inside_lesson and name in OTHER_FOLDERS):
            return True
        inside_lesson = inside_lesson or is_lesson(name)
    return False
