"""A hand-in before it is sorted: what every kind of it can say, how much of it is read, and how it is named."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

HAND_IN_BYTES = 20_000_000
"""Bytes read from one hand-in; a lesson as it is handed out has about 30,000."""

HAND_IN_FILES = 2_000
"""Files read from one hand-in; all lessons as they are handed out have about 130."""

FILE_BYTES = 2_000_000
"""Bytes of one file."""

PATH_BYTES = 200
"""Bytes of a file's path below its lesson's folder, in UTF-8."""

ENTRIES = 50_000
"""Files and folders looked at in one hand-in; what `ignored` names is not entered and not counted."""

NOT_THE_LEARNERS = frozenset({"solutions", "checks", "notebooks", "node_modules", "__pycache__", "__MACOSX"})
"""Folders in which no lesson is looked for, besides those whose name begins with a dot."""

LONGEST_SHOWN = 120
"""Characters of a path in a note; the middle of a longer one is left out."""


class HandInUnreadable(Exception):
    """Nothing of a hand-in can be graded; the message is a note for the instructor."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Something in a hand-in that is not a folder.

    `path` is relative to the hand-in, with `/`. `size` is what the hand-in claims, in bytes. `kind` says what it is
    where it is no regular file ("a symbolic link"), `trouble` why it cannot be read ("it is encrypted").
    """

    path: str
    size: int = 0
    kind: str = ""
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Content:
    """What was read of an entry: at most FILE_BYTES + 1 bytes, or the trouble that there was."""

    path: str
    data: bytes = b""
    trouble: str = ""


class Source(Protocol):
    """A hand-in of one kind. Both methods raise HandInUnreadable where nothing can be made of the whole."""

    def entries(self) -> Iterable[Entry]:
        """Everything that is no folder, in any order, as often as it is there."""

    def contents(self, chosen: Sequence[Entry]) -> Iterator[Content]:
        """What the chosen entries hold, in their order; they are regular files, each path among them once."""


def is_lesson(name: str) -> bool:
    """Whether a folder of this name holds a lesson: `lesson_` and two digits."""
    digits = name.removeprefix("lesson_")
    return name != digits and len(digits) == 2 and digits.isascii() and digits.isdecimal()


def ignored(path: str) -> bool:
    """Whether something is passed over without a word: what is hidden, and what tools and the workbook put there.

    Within a lesson, folders called `checks` or `solutions` are the learner's own.
    """
    inside = False
    for name in path.split("/"):
        if name.startswith(".") and name not in (".", "..", ".dockerignore"):
            return True
        if name in ("node_modules", "__pycache__") or (not inside and name in NOT_THE_LEARNERS):
            return True
        inside = inside or is_lesson(name)
    return False


def clean(text: str) -> str:
    """The text with U+FFFD for each control character and each byte that is no UTF-8; all else as it is."""
    return "".join("\ufffd" if unicodedata.category(char) in ("Cc", "Cs") else char for char in text)


def shown(path: str) -> str:
    """A learner's path as notes show it."""
    half = LONGEST_SHOWN // 2
    return clean(path if len(path) <= LONGEST_SHOWN else f"{path[:half]}…{path[-half:]}")
