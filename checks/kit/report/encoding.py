"""Output that another encoding than UTF-8 can take: a pipe on Windows, LC_ALL=C, PYTHONIOENCODING."""

from __future__ import annotations

import codecs
import io
import sys

IN_ASCII = {
    "·": "-",
    "–": "-",
    "—": "-",
    "…": "...",
    "→": "->",
    "←": "<-",
    "“": '"',
    "”": '"',
    "’": "'",
    "×": "x",
    "█": "#",
}
"""Replacements for characters of ours that the encoding does not have."""


def accept_any_text() -> None:
    """From now on, printing never fails for the sake of a character; one without a substitute becomes `?`."""
    codecs.register_error("workbook", _substitute)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="workbook")


def can_print(text: str) -> bool:
    """Whether standard output takes this text as it is."""
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except (UnicodeError, LookupError):
        return False
    return True


def _substitute(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(IN_ASCII.get(one, "?") for one in error.object[error.start : error.end]), error.end
