"""Lesson 12: what PostgreSQL can do for the shop. Here: attributes of books, which are JSON."""

import json

from checks.kit.report import expect
from checks.lesson_12.at_once import both_before_either_writes, stored_first, while_another_program_writes

LOST = "An editor sees the new value and closes the page. The next reader sees the old one, and nobody knows why."
TWO_EDITORS = "Two editors work on one book, and the work of one of them is gone. Both read that it is stored."
REFUSED = "An editor's change is refused, only because somebody else has changed the same book at that moment."
SECTION = "The session compares values, and not what happened to them"

AT_ONCE = "Two changes at the same moment"

BEFORE = {
    "language": "fr",
    "size": {"width": 120, "height": 200, "unit": {"name": "mm", "si": True}},
    "tags": ["sea", "it's"],
    "series": None,
}

CHANGES = (
    {"size": {"width": 130}},
    {"size": {"unit": {"name": 'Zoll "in"', "si": None}}},
    {"size": {"unit": {"system": {"of": "old"}}}},
    {"size": {"unit": {"system": {"of": "old"}}}},
    {"tags": ["coast"]},
    {"tags": {"0": "coast"}},
    {"language": {"name": "français"}},
    {"language": {"name": None}},
    {"language": "de", "never": None},
    {},
    {"size": None},
    {"size": {"depth": {"value": 1.5, "gone": None}}},
    {"a.b": {"'": "%s", "": 0}, "$": [None, {"kept": None}], "{x}": False},
)


async def test_a_change_of_attributes_is_stored(app, shop, wire):
    """`PATCH /books/{book_id}/attributes` returns and stores the merged attributes, at every depth."""
    ids = await shop.seed(books=3)
    book, path = ids.books[1], f"/books/{ids.books[1]}/attributes"
    await shop.execute("UPDATE books SET attributes = $1", json.dumps(BEFORE), step="all books have attributes")
    expected = BEFORE
    for change in CHANGES:
        before, expected = expected, merged(expected, change)
        if change is CHANGES[0]:
            response = await stored_first(app, wire, "PATCH", path, change, SECTION)
        else:
            response = await app.patch(path, json=change)
        said = f"The attributes of book {book} were {json.dumps(before)}. {path} was sent {json.dumps(change)}."
        expect(
            response.status == 200 and response.json == expected,
            f"{said} Expected: {json.dumps(expected)}. {response}",
            because="The editor does not see the attributes that the book should have now.",
            section=SECTION,
        )
        for where, found in (("The table has", await stored(shop, book)), ("GET returns", (await app.get(path)).json)):
            expect(
                found == expected,
                f"{said} The response was right. {where} {json.dumps(found)}.",
                because=LOST,
                section=SECTION,
            )
    for other in (ids.books[0], *ids.others.books):
        expect(
            await stored(shop, other) == BEFORE,
            f"The attributes of book {other}, which was not changed, are {json.dumps(await stored(shop, other))}.",
            because="Another book shows attributes that nobody gave it.",
            section=SECTION,
        )
    missing = await app.patch(f"/books/{2**40}/attributes", json={"size": 1})
    expect(
        missing.status == 404,
        f"A change of a book that does not exist: {missing}. Expected: status 404.",
        because="The program that sent the change does not learn that the book does not exist.",
        section=SECTION,
    )


async def test_changes_at_the_same_moment_both_stay(apps, shop, wire):
    """Two changes of one book's attributes at the same moment, in two processes or by SQL, are both stored."""
    ids = await shop.seed(books=1)
    path = f"/books/{ids.books[0]}/attributes"
    for before, *changes in (
        ({}, {"language": "fr"}, {"tags": ["sea"]}),
        (BEFORE, {"size": {"width": 130}}, {"size": {"unit": {"name": "cm"}}}),
        (BEFORE, {"size": None}, {"series": "Harbor"}),
    ):
        await shop.execute("UPDATE books SET attributes = $1", json.dumps(before), step="the book has attributes")
        one, other = changes
        responses = await both_before_either_writes(
            wire,
            shop,
            lambda change=one: apps[0].start_request("PATCH", path, json=change),
            lambda change=other: apps[1].start_request("PATCH", path, json=change),
        )
        found, expected = await stored(shop, ids.books[0]), merged(merged(before, one), other)
        accepted = [response.status for response in responses] == [200, 200]
        expect(
            accepted and found == expected,
            f"The attributes were {json.dumps(before)}. Two processes changed them at the same moment, by "
            f"{json.dumps(one)} and {json.dumps(other)}. The responses have status {responses[0].status} and "
            f"{responses[1].status}. The table has {json.dumps(found)}; expected: {json.dumps(expected)}.",
            because=TWO_EDITORS if accepted else REFUSED,
            section=AT_ONCE,
        )
        for number, app in enumerate(apps[:2], 1):
            response = await app.get(path)
            expect(
                response.status == 200 and response.json == expected,
                f"The table has {json.dumps(expected)} after changes through two processes. Process {number} returns "
                f"something else: {response}",
                because="What an editor sees depends on the process that the request happens to reach.",
                section=AT_ONCE,
            )
    await shop.execute("UPDATE books SET attributes = $1", json.dumps(BEFORE), step="the book has attributes")
    response = await while_another_program_writes(
        wire,
        shop,
        lambda: apps[0].start_request("PATCH", path, json={"language": "de"}),
        """UPDATE books SET attributes = attributes || '{"series": "Harbor"}' WHERE id = $1""",
        ids.books[0],
    )
    found, expected = await stored(shop, ids.books[0]), {**BEFORE, "language": "de", "series": "Harbor"}
    expect(
        response.status == 200 and found == expected,
        f"Another program had set the series to Harbor by SQL, and not committed yet, when {path} was sent "
        f'{{"language": "de"}}: {response}. The table has {json.dumps(found)}; expected: {json.dumps(expected)}.',
        because="A program of the warehouse and an editor change a book. One of the changes is gone, or is refused.",
        section=AT_ONCE,
    )


async def stored(shop, book):
    return json.loads(await shop.value("SELECT attributes::text FROM books WHERE id = $1", book))


def merged(target, patch):
    """RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        result[name] = merged(result.get(name), value)
        if value is None:
            del result[name]
    return result
