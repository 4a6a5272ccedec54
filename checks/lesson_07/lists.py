"""Publishers' lists for the checks of lesson 07, and the report that must come back for each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from checks.kit.report import expect, plural

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from checks.kit.service.app import Response

POISONED = "One bad line poisons the session"
LOST_LINES = (
    "The publisher reads the report and sends the corrected lines. A good line that is not stored, or a bad one that "
    "is not named, is a book that the shop does not sell, and nobody knows."
)
LONGEST = 1000
"""Lines of the longest list that the service takes."""

MAX_INTEGER = 2**31 - 1

Line = dict[str, Any]


def line(number: int, author: int, **changed: Any) -> Line:
    """A line of a list; its ISBN is as it will be stored."""
    book = {"isbn": f"9789{number:06}", "title": f"Imported {number}", "author_id": author, "price_cents": 900 + number}
    return book | {"stock": number % 7} | changed


def hyphenated(isbn: str) -> str:
    return f"{isbn[:3]}-{isbn[3:5]} {isbn[5:]}"


def as_stored(isbn: str) -> str:
    return isbn.upper().replace("-", "").replace(" ", "")


def columns_of(one: Line) -> dict[str, Any]:
    """What is stored of a good line, apart from its ISBN."""
    numbers = {name: int(one.get(name, 0)) for name in ("author_id", "price_cents", "stock")}
    return {"title": one["title"]} | numbers


def unusual_lines(author: int) -> list[Line]:
    """Good lines of a kind that is rare. `POST /books` takes all of them."""
    without_stock = line(60, author)
    del without_stock["stock"]
    return [
        without_stock,
        line(61, author, isbn="978-9-0000-006-1x"),  # of 17 characters, with a small letter
        line(62, author, price_cents="900", author_id=str(author), stock=4.0),
        line(63, author, publisher="Rain & Sons", id=7),
        line(64, author, title='It\'s 100% "Cotton"; :isbn $1 %s {0} \\N\t🎁'),
        line(65, author, price_cents=MAX_INTEGER, stock=MAX_INTEGER),
    ]


def lines_of_a_kind(author: int) -> list[Line]:
    """More good lines: ISBNs that differ in one character, and a blank title. `POST /books` takes them all."""
    return [
        line(67, author, isbn="9789-000067-A"),
        line(68, author, isbn="9789-000067-B"),
        line(69, author, title=" "),
        line(68, author),
        line(68, author, isbn="9789\N{EN DASH}000068"),  # as a word processor writes it; PostgreSQL stores this dash
        line(68, author, isbn="9789000068\t"),  # as a spreadsheet copies it; PostgreSQL stores the tab
    ]


def bad_lines(author: int, unknown: int, taken: str) -> list[Line | object]:
    """One of each kind. `unknown` is the id of no author, `taken` the ISBN of a book in the shop."""
    return [
        line(101, author, price_cents=0),
        {"isbn": "978-9-000-102", "author_id": author, "price_cents": 900},  # no title
        line(103, author, title="A\0B"),
        line(104, unknown),
        line(105, author, isbn=taken),
        line(106, author, isbn=hyphenated(taken)),
        "978-9-000-107",
        None,
        line(109, author, stock=-1),
        line(110, author, price_cents=MAX_INTEGER + 1),
        line(111, 2**63),
        line(112, author, isbn="9789-0112"),  # of 9 characters
        line(113, author, price_cents="nine"),
        [line(114, author)],
        line(115, author, title="Half of an emoji: \ud83c"),  # a client may send it, and no response can repeat it
    ]


def longest_list(author: int, newcomer: int, unknown: int, taken: str) -> tuple[list[Line], list[bool]]:
    """A list of 1,000 lines, and which of them are good. Every other one passes validation, and the last ten do.

    Something new comes at the end: the author `newcomer`, an ISBN of line 1 once more, one that is in the shop, and the
    author `unknown`. Lines 499 and 501 have one ISBN.
    """
    listed = [line(n, author, price_cents=0 if n % 2 == 0 else 900) for n in range(1, LONGEST - 9)]
    listed += [line(n, author) for n in range(LONGEST - 9, LONGEST - 4)]
    listed += [
        line(LONGEST - 4, newcomer),
        line(LONGEST - 3, author, isbn=hyphenated(listed[0]["isbn"])),
        line(LONGEST - 2, author, isbn=hyphenated(taken)),
        line(LONGEST - 1, unknown),
        line(LONGEST, author),
    ]
    listed[498] = line(499, author)
    listed[500] = line(501, author, isbn=hyphenated(listed[498]["isbn"]))
    bad = {501, LONGEST - 3, LONGEST - 2, LONGEST - 1}
    return listed, [one["price_cents"] > 0 and n not in bad for n, one in enumerate(listed, 1)]


def expect_reported(
    response: Response,
    listed: Sequence[object],
    wanted: Sequence[bool],
    stored: Mapping[str, Mapping[str, Any]],
    kind: str,
) -> None:
    """The report has a line for each line: with the book's id, or with a reason. `stored` has the books by ISBN."""
    report = response.json if isinstance(response.json, dict) else {}
    lines = report.get("lines")
    numbers = [one.get("line") for one in lines] if isinstance(lines, list) else None
    expect(
        numbers == [*range(1, len(listed) + 1)] and report.get("stored") == sum(wanted),
        f"The report of a list ({kind}) of {len(listed)} lines, {sum(wanted)} of them good: lines {_short(numbers)}, "
        f"stored: {report.get('stored')!r}. Expected: a line for each, and stored: {sum(wanted)}.",
        because=LOST_LINES,
        section=POISONED,
    )
    wrong = []
    for one, want, said in zip(listed, wanted, lines or [], strict=True):
        book, reason = said.get("book_id"), said.get("reason")
        if want:
            assert isinstance(one, dict)
            row = stored.get(as_stored(one["isbn"]))
            right = row is not None and book == row["id"] and not reason
        else:
            right = book is None and bool(reason)
        if not right:
            wrong.append(f"line {said['line']} ({'good' if want else 'bad'}): book_id {book!r}, reason {reason!r}")
    expect(
        not wrong,
        f"The report of a list ({kind}): {plural(len(wrong), 'line')} wrong. {'; '.join(wrong[:2])}. Expected: the id "
        "of the book for a good line, and a reason for a bad one.",
        because=LOST_LINES,
        section=POISONED,
    )


def _short(numbers: list[Any] | None) -> str:
    text = str(numbers)
    return text if len(text) <= 60 else f"{text[:30]} … {text[-20:]}"
