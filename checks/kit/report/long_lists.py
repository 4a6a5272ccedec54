"""Statements without the rows and members that look like those before them."""

from __future__ import annotations

import re

TUPLE = r"\((?:[^()]|\([^()]*\))*\)"
"""What is between parentheses, which may hold calls of functions: `($1, lower($2))`."""

CUT = r"(,?\s*(?:\([^()]*(?:\([^()]*\)[^()]*)*(?:\([^()]*)?)?\Z)?"
"""At the end of a text that was cut: a part of the next row, or nothing."""

ROWS = re.compile(rf"(\bVALUES\s*{TUPLE},\s*{TUPLE})((?:,\s*{TUPLE}){{4,}}){CUT}", re.IGNORECASE)
"""A list of at least six rows: two of them, and the others."""

MEMBERS = re.compile(r"(\bIN \([^(),]+, [^(),]+)((?:, [^(),]+){10,})(?=\))", re.IGNORECASE)
"""A list of at least twelve members: two of them, and the others."""


def shorten_lists(text: str) -> str:
    """A statement in which a long VALUES or IN list is two of its entries and the number of the others."""
    text = ROWS.sub(lambda found: f"{found[1]}, … {_others(found)}", text)
    return MEMBERS.sub(lambda found: f"{found[1]}, … {found[2].count(',')} more", text)


def _others(rows: re.Match[str]) -> str:
    return "and more" if rows[3] else f"{len(re.findall(TUPLE, rows[2]))} more"
