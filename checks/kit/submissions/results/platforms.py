"""The marks as Moodle and Canvas import them, in percent.

Moodle (grade/import/csv): any columns, of which the instructor says in a form what they hold. A person who is not in
the course ends the import, and so does a mark above the maximum of the item, usually 100. An empty cell deletes a mark.
Canvas (lib/gradebook_importer.rb): Student, ID, the SIS columns, Section, and then assignments; a row says how many
points they have. An empty cell deletes a mark there, too. So both files have nobody without a final mark.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence

from checks.kit.submissions.marking.marks import Mark
from checks.kit.submissions.marking.roster import Roster
from checks.kit.submissions.results.marks_table import number

TITLE = "Bookshop workbook"
"""The assignment, unless the roster has a column that begins like this: `Bookshop workbook (4711)`."""

MOODLE = {
    "username": "Username",
    "id": "ID number",
    "email": "Email address",
    "first": "First name",
    "last": "Last name",
    "name": "Full name",
}

CANVAS = {"name": "Student", "canvas": "ID", "id": "SIS User ID", "username": "SIS Login ID", "section": "Section"}
"""In the order that Canvas expects; a SIS User ID without a SIS Login ID is not understood."""


def imports(roster: Roster, marks: Sequence[Mark]) -> Iterator[tuple[str, bytes]]:
    """canvas.csv if the roster is Canvas's gradebook; else moodle.csv, if it says who somebody is in Moodle."""
    if {"name", "canvas", "section"} <= roster.columns.keys():
        yield "canvas.csv", _canvas(roster, marks)
    elif roster.columns.keys() & {"username", "id", "email"}:
        yield "moodle.csv", _moodle(roster, marks)


def _moodle(roster: Roster, marks: Sequence[Mark]) -> bytes:
    columns = [what for what in MOODLE if what in roster.columns]
    rows = [[*(MOODLE[what] for what in columns), f"{TITLE} (percent)"]]
    for mark in marks:
        if mark.person and mark.percent is not None:
            rows.append([*(mark.person.cells.get(what, "") for what in columns), number(mark.percent)])
    return _csv(rows)


def _canvas(roster: Roster, marks: Sequence[Mark]) -> bytes:
    columns = [what for what in CANVAS if what in roster.columns and (what != "id" or "username" in roster.columns)]
    title = next((header for header in roster.headers if header.strip().startswith(TITLE)), TITLE)
    empty = [""] * (len(columns) - 1)
    rows = [[*(CANVAS[what] for what in columns), title], ["    Points Possible", *empty, "100"]]
    for mark in marks:
        if mark.person and mark.percent is not None:
            rows.append([*(mark.person.cells.get(what, "") for what in columns), number(mark.percent)])
    return _csv(rows)


def _csv(rows: Sequence[Sequence[str]]) -> bytes:
    """In UTF-8 without a byte order mark, which neither of the two expects."""
    out = io.StringIO(newline="")
    csv.writer(out).writerows(rows)
    return out.getvalue().encode()
