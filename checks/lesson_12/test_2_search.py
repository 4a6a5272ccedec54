"""Lesson 12: what PostgreSQL can do for the shop. Here: books found by what they are."""

import json

import pytest

from checks.kit.report import expect
from checks.lesson_12.pages import FEW, expect_few_pages, watched

NOT_FOUND = "A customer does not find a book that the shop has, and buys it elsewhere."
TOO_MANY = "A customer sees books that do not fit the search."
WRONG_LIST = "The list that a customer sees lacks books, has them twice, or is not sorted."
SLOW = "A search takes longer with each book that the shop adds, and a few at a time keep the database busy."
CONTAINS = "The index knows what a document contains"
KEYS = "Compute both sides of a comparison in PostgreSQL"

ODD_NAME, ODD_VALUE = 'it\'s "a.b" \\new {c}', '50% \\ "ß", _x'

ATTRIBUTES = (
    {"language": "fr"},
    {"language": ["de", "fr"]},
    {"language": "FR"},
    {"language": "fra"},
    {"language": {"fr": 1}},
    {"language": {"name": "fr"}},
    {"original": {"language": "fr"}},
    {"original": [{"language": "fr"}]},
    {"fr": "language"},
    {"languages": "fr"},
    {"Language": "fr"},
    {"language": None},
    {"language": []},
    {"language": ""},
    {"note": ["", "x"]},
    {"language": "fr", "note": "", ODD_NAME: [ODD_VALUE]},
    {ODD_NAME: ODD_VALUE, "language": ["fr", None, 3, {"x": "y"}]},
    {ODD_NAME: "50x"},
    {},
)

MANY = 1_100
"""Books with one attribute, or one title, in common: more than fit on a page of any list."""

SEARCHES = (
    ("shelf", "A"),
    ("language", "fr"),
    ("language", "FR"),
    ("language", ""),
    ("note", ""),
    (ODD_NAME, ODD_VALUE),
    ("fr", "language"),
    ("name", "fr"),
    ("language", "f%"),
    ("nothing", "fr"),
)


async def test_a_search_finds_what_has_the_attribute(app, shop):
    """`GET /search/attributes` lists the books whose attribute is the text, or a list with it, and no others."""
    ids = await shop.seed(books=len(ATTRIBUTES) + MANY)
    await shop.execute('UPDATE books SET attributes = \'{"shelf": "A"}\'')
    for book, attributes in zip(ids.books, ATTRIBUTES, strict=False):
        await shop.execute("UPDATE books SET attributes = $1 WHERE id = $2", json.dumps(attributes), book)
    for turn in ("as it was", "after changes"):
        rows = await shop.rows("SELECT id, title, attributes::text FROM books ORDER BY id")
        books = [{**row, "attributes": json.loads(row["attributes"])} for row in rows]
        for name, value in SEARCHES:
            right = [book for book in books if has(book["attributes"].get(name), value)]
            response = await app.get("/search/attributes", params={"name": name, "value": value})
            found = response.json if response.status == 200 else None
            expect(
                found is not None and [book["id"] for book in found] == [book["id"] for book in right],
                f"Books whose attribute {name!r} is {value!r}, {turn}: {shown(found, books, response)}. "
                f"Expected, sorted by id: {shown(right, books, response)}.",
                because=TOO_MANY if found and len(found) > len(right) else WRONG_LIST if found else NOT_FOUND,
                section=CONTAINS,
            )
            expect(
                found == right,
                f"Expected books as they are stored: {right}. {response}",
                because="A page shows attributes that a book does not have.",
                section=CONTAINS,
            )
        await app.patch(f"/books/{ids.books[-1]}/attributes", json={"language": ["fr"], "shelf": None})
        await shop.execute("UPDATE books SET attributes = '{}' WHERE id = $1", ids.books[0])
        await shop.execute('UPDATE books SET attributes = \'{"note": [""]}\' WHERE id = $1', ids.books[2])


RARE = (("language", "x-17"), ("series", "Harbor 9"), ("tags", "t401"), ("shelf", "none"), ("a'b", "7"))
"""Attributes that few of the 50,000 books have, or none."""


@pytest.mark.start_early
async def test_a_search_by_attribute_reads_few_pages(large, app, wire, explain):
    """`GET /search/attributes` reads few pages of 50,000 books, whatever the name of the attribute."""
    for name, value in RARE:
        counted = await large.value(
            "SELECT count(*) FROM books WHERE attributes @> jsonb_build_object($1::text, $2::text) "
            "OR attributes @> jsonb_build_object($1::text, jsonb_build_array($2::text))",
            name,
            value,
        )
        response, seen = await watched(app, wire, "/search/attributes", {"name": name, "value": value})
        expect(
            response.status == 200 and len(response.json) == counted,
            f"{counted} of the books have {name} = {value}. {response}",
            because=NOT_FOUND,
            section=CONTAINS,
        )
        await expect_few_pages(
            explain, seen, "books", f"The search for {name} = {value}", because=SLOW, section=FEW["attributes"]
        )


LONG = "A Title of Many Words, " * 40

ODD_TITLES = (
    "\u00a0Atlas of Rain",
    "\tTabbed",
    "  Spaces  ",
    "ΟΔΥΣΣΕΥΣ",
    "İstanbul",
    "Straße",
    "STRASSEN",
    "ÉMILE",
    "100% 'Proof'",
    "100x 'Proof'",
    "a_b \\ (c)",
    "axb \\ (c)",
    "The Wind",
    "the wind",
    "The Winding",
    "TheWind",
    "The  Wind",
    f"{LONG}1",
    f"{LONG}2",
    "The Wind 26221",  # PostgreSQL's hashtext() is the same for this title in lower case and for the next one
    "The Wind 65439",
)


async def test_a_book_is_found_by_its_title(app, shop):
    """`GET /search/titles` finds the books with a title, as it is stored and in another case, and no others."""
    ids = await shop.seed(books=len(ODD_TITLES) + MANY, authors=2)
    await shop.execute("UPDATE books SET title = 'Same' WHERE id = ANY ($1)", ids.books)
    for book, title in zip(ids.books, ODD_TITLES, strict=False):
        await shop.execute("UPDATE books SET title = $1 WHERE id = $2", title, book)
    await expect_titles(app, shop, ", stored by another program")
    for book, title in zip(ids.books, (*ODD_TITLES[5:], "New", "new", "NÉW", "\u2003New", "New\n"), strict=False):
        changed = await app.patch(f"/books/{book}", json={"title": title}, headers={"If-Match": "*"})
        expect(
            changed.status == 200,
            f"A change of a title: {changed}. Expected: status 200.",
            because="Titles cannot be corrected any more.",
            section=KEYS,
        )
    new = {"author_id": ids.authors[0], "price_cents": 900}
    await app.post("/books", json={**new, "isbn": "9780000000001", "title": "\u00a0Added"})
    await app.post("/books/bulk", json=[{**new, "isbn": "9780000000002", "title": "ΝΕΟΣ"}])
    await expect_titles(app, shop, ", after changes through the API")


@pytest.mark.start_early
async def test_a_search_by_title_reads_few_pages(large, app, wire, explain):
    """`GET /search/titles` reads few pages of 50,000 books."""
    for title, right in (("Title 17", 1), ("title 49999", 1), (" TITLE 4711 ", 1), ("Title", 0)):
        response, seen = await watched(app, wire, "/search/titles", {"title": title})
        expect(
            response.status == 200 and len(response.json) == right,
            f"{right} of the books have the title {title!r}. {response}",
            because=NOT_FOUND,
            section=KEYS,
        )
        await expect_few_pages(
            explain, seen, "books", f"The search for the title {title!r}", because=SLOW, section=FEW["titles"]
        )


async def expect_titles(app, shop, when):
    books = await shop.rows("SELECT id, title FROM books ORDER BY id")
    first = {book["title"]: book["id"] for book in reversed(books)}
    same = {title: letters(title) for title in first}
    for title, key in first.items():
        for what, typed in (
            ("as it is stored", title),
            ("in another case", other_case(title)),
            ("with spaces around it", f"  {title} "),
        ):
            response = await app.get("/search/titles", params={"title": typed})
            found = [one["title"] for one in response.json] if response.status == 200 else []
            expect(
                response.status == 200 and key in [one["id"] for one in response.json],
                f"Book {key} has the title {title!r}{when}. A search for it {what}, {typed!r}, does not list it: "
                f"{response}",
                because=NOT_FOUND,
                section=KEYS,
            )
            strangers = [one for one in found if one != title and plain(one) != plain(title)]
            expect(
                not strangers,
                f"Book {key} has the title {title!r}{when}. A search for it {what}, {typed!r}, also lists books with "
                f"other titles: {strangers}.",
                because=TOO_MANY,
                section=KEYS,
            )
            expected = [one["id"] for one in books if same[one["title"]] == same[title]]
            listed = [one["id"] for one in response.json]
            expect(
                listed == sorted(set(listed)) and set(expected) <= set(listed),
                f"{len(expected)} books have the title {title!r}{when}. A search for it {what}, {typed!r}, must list "
                f"all of them, sorted by id: {expected}. {response}",
                because=WRONG_LIST,
                section=KEYS,
            )


def has(attribute, value):
    return attribute == value or (isinstance(attribute, list) and value in attribute)


def shown(found, books, response):
    """Ids with attributes; the response, if it is no list."""
    if found is None:
        return str(response)
    known = {book["id"]: book["attributes"] for book in books}
    first = [f"{book['id']} {json.dumps(known.get(book['id']))}" for book in found[:8]]
    return ", ".join([*first, *([f"and {len(found) - 8} more"] if len(found) > 8 else [])]) or "none"


def other_case(title):
    """A to Z with another case; other letters as they are."""
    return "".join(one.swapcase() if one.isascii() else one for one in title)


def letters(title):
    """What counts of a title: case of A to Z, and spaces around it, do not."""
    return "".join(one.lower() if one.isascii() else one for one in title).strip(" ")


def plain(title):
    """Equal for titles that any rule about letters, and about white space around them, could take for one."""
    return title.casefold().upper().casefold().strip().replace("\u0307", "").replace("ς", "σ")
