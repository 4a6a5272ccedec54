"""Makes text that others wrote (logs, file names, error messages) safe to show in a terminal, a file or a page.

None of these functions escapes HTML: the page's template does that.
"""

from __future__ import annotations

import re
import textwrap
import unicodedata

MAX_CHARACTERS = 10_000
"""Characters of one field of a result that are shown. Fields have hundreds; a learner's log may have millions."""

MAX_NAME_CHARACTERS = 120
"""Characters of a path in a message; the middle of a longer one is left out."""

CONTROL_CHARACTERS = dict.fromkeys(range(127, 160), 0xFFFD) | {
    code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n"
}
"""A visible symbol for each control character but tab and newline: `␛` for escape. Those above 126 have no symbol."""

INVISIBLE = re.compile("[\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufffe\uffff]")
"""What reverses the direction of a line, and what no file in UTF-8 can hold (halves of characters)."""


def escape_controls(text: str) -> str:
    """The text with a visible symbol for each character that would command a terminal or reverse a line.

    Tabs and newlines stay, and `\\r\\n` becomes a newline.
    """
    return INVISIBLE.sub("\ufffd", text.replace("\r\n", "\n").translate(CONTROL_CHARACTERS))


def replace_controls(text: str) -> str:
    """The text on one line: U+FFFD for each control character, newlines included, and for each byte that is no UTF-8.

    For names of files and learners. A name that this function changes is not fit to be written to a disk.
    """
    return "".join("\ufffd" if unicodedata.category(char) in ("Cc", "Cs") else char for char in text)


def truncate(text: str, limit: int = MAX_CHARACTERS) -> str:
    """The first `limit` characters, with a note on how many more there are."""
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text) - limit} more characters)"


def display_text(text: str, limit: int = MAX_CHARACTERS) -> str:
    """At most `limit` characters of a text of several lines, with visible control characters."""
    return escape_controls(truncate(text, limit))


def display_line(text: str, width: int) -> str:
    """The beginning of a text as one line of at most `width` characters, cut between words where it has any."""
    # four times the width leaves enough when blanks are joined; a text of megabytes is not read to its end
    line = " ".join(escape_controls(text[: 4 * width]).split())
    if len(line) <= width:
        return line
    return textwrap.shorten(line, width, placeholder="…") if " " in line[:width] else line[: width - 1] + "…"


def display_name(path: str, limit: int = MAX_NAME_CHARACTERS) -> str:
    """A path that somebody else chose, on one line; of a long one the beginning and the end."""
    half = limit // 2
    return replace_controls(path if len(path) <= limit else f"{path[:half]}…{path[-half:]}")
