"""The roster of a class: a CSV as Moodle, Canvas or GitHub Classroom export it, or one of your own."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from checks.kit.lessons.errors import WorkbookError

COLUMNS = {
    "first": ("firstname", "givenname", "forename", "vorname", "prénom", "nombre"),
    "last": ("lastname", "surname", "familyname", "nachname", "nom", "apellidos", "apellido"),
    "name": ("name", "fullname", "student", "studentname", "displayname"),
    "email": ("email", "emailaddress", "mail"),
    "id": (
        "idnumber",
        "studentid",
        "studentnumber",
        "sisuserid",
        "identifier",
        "matriculationnumber",
        "matrikelnummer",
    ),
    "username": ("username", "login", "loginid", "sisloginid"),
    "github": ("githubusername", "github"),
    "canvas": ("id",),
    "section": ("section",),
}
"""What a column holds, by the usual names of it, in lower case and without anything but letters and digits."""

IDENTIFYING = ("email", "id", "username", "github", "canvas")
"""Columns that are about one person only."""

EXPECTED = "Name a column Name, First name and Last name, Email address, ID number or Username."

UTF16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True, slots=True)
class Person:
    """A row of the roster: its cells, by what they hold as in COLUMNS. There is no cell for an empty one."""

    cells: Mapping[str, str] = field(repr=False)

    @property
    def name(self) -> str:
        """The name as people read it; if there is none, what else is known."""
        both = " ".join(self.cells[part] for part in ("first", "last") if part in self.cells)
        return self.cells.get("name") or both or next(iter(self.cells.values()))


@dataclass(frozen=True, slots=True)
class Roster:
    """Everybody on the roster, in its order. `columns` says which header holds what, as in COLUMNS."""

    people: Sequence[Person]
    columns: Mapping[str, str]
    headers: Sequence[str] = ()


def read_roster(path: Path) -> Roster:
    """Reads the CSV. Raises WorkbookError."""
    try:
        text = _decoded(path.read_bytes())
    except OSError as error:
        raise WorkbookError(f"--roster {path} cannot be read: {error.strerror}.") from None
    first, *_ = text.splitlines() or [""]
    delimiter = max(",;\t", key=first.count)
    try:
        headers, *rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if any(row)]
    except (csv.Error, ValueError):
        raise WorkbookError(f"--roster {path} is not a table: it has no header, or it is not a CSV file.") from None
    columns = _columns(headers)
    if not columns.keys() - {"section", "first"}:
        raise WorkbookError(f"--roster {path} has no column that says who somebody is. {EXPECTED}")
    places = {what: headers.index(header) for what, header in columns.items()}
    people = []
    for row in rows:
        cells = {what: row[place].strip() for what, place in places.items() if place < len(row) and row[place].strip()}
        if cells and "points possible" not in cells.get("name", "").casefold():  # Canvas has such a row
            people.append(Person(cells))
    if not people:
        raise WorkbookError(f"--roster {path} names nobody.")
    return Roster(people, columns, headers)


def words(text: str) -> tuple[str, ...]:
    """The words and numbers of a text, in lower case and without accents: `Zoë BRONTË-7` is `zoe`, `bronte`, `7`."""
    letters = unicodedata.normalize("NFKD", text.casefold())
    plain = "".join(letter for letter in letters if not unicodedata.combining(letter))
    return tuple(re.findall(r"[^\W_]+", plain))


def _decoded(content: bytes) -> str:
    if content.startswith(UTF16):
        return content.decode("utf-16", errors="replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:  # an older Excel
        return content.decode("cp1252", errors="replace")


def _columns(headers: Iterable[str]) -> dict[str, str]:
    """The first header for each thing that a column may hold."""
    found: dict[str, str] = {}
    for header in headers:
        plain = "".join(re.findall(r"[^\W_]+", header.casefold()))
        for what, names in COLUMNS.items():
            if plain in names:
                found.setdefault(what, header)
    return found
