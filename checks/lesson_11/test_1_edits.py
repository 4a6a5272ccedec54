"""Lesson 11: what the API promises. Here: edits of a book."""

from datetime import date

from checks.kit.report import expect
from checks.kit.wire import committing
from checks.lesson_11.members import UNKNOWN, settled, stocked
from checks.lesson_11.shape import expect_status

EDITS = "Absent, null and set are three different things"
LOST = "An editor changed one thing, and another one is gone. Nobody notices before a customer does."
IGNORED = "An editor changed something, and reads that it is saved. It is not stored as the editor has sent it."
REFUSED = "An edit that the ticket allows does not work."

COLUMNS = ("isbn", "title", "subtitle", "author_id", "price_cents", "discount_percent", "published_on", "stock")


STALE = "Two editors read one version, and both save. The second one does not learn that it overwrites the first."


async def test_a_patch_changes_what_it_names(app, shop, wire):
    """`PATCH /books/{book_id}` changes the fields that it names, and no others; `null` clears a field."""
    ids = await stocked(shop)
    other_author = ids.authors[1]
    for number, book in enumerate(ids.books[:2]):
        await shop.execute(
            "UPDATE books SET subtitle = $2, published_on = $3, discount_percent = 7, author_id = $4 WHERE id = $1",
            *(book, 'It\'s a "Subtitle"', date(1999, 12, 31), ids.authors[0]),
        )
        for change in (
            {"title": "Another Title"},
            {},
            {"subtitle": None},
            {"price_cents": 4321},
            {"subtitle": "Set Again"},
            {"subtitle": ""},
            {"published_on": None},
            {"discount_percent": 0},
            {"published_on": "2001-02-03"},
            {"author_id": other_author},
            {"subtitle": None, "title": "Both at Once"},
            {"isbn": f"978111111111{number}"},
            {"subtitle": None, "published_on": None},
            {"discount_percent": 90, "subtitle": "100 %", "published_on": "1970-01-01"},
            {"title": "The Last Title", "published_on": None},
        ):
            before = await row_of(shop, book)
            others = await rows_but(shop, book)
            shown = await app.get(f"/books/{book}")
            match = shown.headers.get("etag", "none") if number else "*"
            response = await app.patch(f"/books/{book}", json=change, headers={"If-Match": match})
            if not change and response.status == 422:  # that is left open
                continue
            expect_status(response, (200,), f"The edit {change} with If-Match {match}", REFUSED, EDITS)
            expected = before | change
            found = await row_of(shop, book)
            expect(
                found == expected,
                f"The edit {change} was saved. {difference(found, expected)}",
                because=LOST if any(found[name] != before[name] for name in before.keys() - change) else IGNORED,
                section=EDITS,
            )
            read = await app.get(f"/books/{book}")
            for said in (response, read):
                found = {name: said[name] for name in COLUMNS}
                expect(
                    found == expected,
                    f"After the edit {change}: {said.request} → {said.status}. {difference(found, expected)}",
                    because="The editor reads a value that is not the stored one.",
                    section=EDITS,
                )
            tags = [one.headers.get("etag") for one in (shown, response, read)]
            expect(
                tags[1] is not None and tags[1] == tags[2] and (not change or tags[0] != tags[1]),
                f"The edit {change}: the ETag was {tags[0]}. PATCH returned {tags[1]}, and GET {tags[2]} after it. "
                "Expected: a new one, the same from both.",
                because="The ETag is what the editor sends as If-Match with the next change.",
                section=EDITS,
            )
            expect(
                not change or read["updated_at"] != shown["updated_at"],
                f"The edit {change}: `updated_at` was {shown['updated_at']}, and is {read['updated_at']} after it.",
                because="Partners ask which books have changed since yesterday, and do not get this one.",
                section=EDITS,
            )
            expect(
                await rows_but(shop, book) == others,
                f"The edit {change} of book {book} has changed other books.",
                because=LOST,
                section=EDITS,
            )
    nowhere = await app.patch(f"/books/{UNKNOWN}", json={"subtitle": None}, headers={"If-Match": "*"})
    expect_status(nowhere, (404,), "An edit of a book that does not exist", REFUSED, EDITS)
    stock = await shop.value("SELECT stock FROM books WHERE id = $1", ids.books[2])
    await app.patch(f"/books/{ids.books[2]}", json={"title": "x", "stock": stock + 500}, headers={"If-Match": "*"})
    found = await shop.value("SELECT stock FROM books WHERE id = $1", ids.books[2])
    expect(
        found == stock,
        f"A PATCH with a `stock` has changed it from {stock} to {found}.",
        because="PUT /books/{book_id}/stock refuses a count that is far off. This is a way around it.",
        section=EDITS,
    )
    await expect_edits_to_take_turns(app, shop, wire, ids.books[2])


async def expect_edits_to_take_turns(app, shop, wire, book):
    """Changes at the same moment: with one ETag the second one gets 412; changes of different fields are all stored."""
    match = {"If-Match": (await app.get(f"/books/{book}")).headers["etag"]}
    async with wire.hold(committing, limit=1) as held:
        first = app.start_request("PATCH", f"/books/{book}", json={"title": "The First"}, headers=match)
        await held.wait_for_or(first.task)
        second = app.start_request("PATCH", f"/books/{book}", json={"title": "The Second"}, headers=match)
        await settled(shop, [second])
    statuses = [(await first).status, (await second).status]
    expect(
        sorted(statuses) == [200, 412],  # the first COMMIT may be that of a transaction that reads
        f"PATCH twice with one ETag, the second before the COMMIT of the first: {statuses}. Expected: 200 and 412.",
        because=STALE,
        section=EDITS,
    )
    stock = await shop.value("SELECT stock FROM books WHERE id = $1", book)
    async with wire.hold(lambda statement: statement.changes, limit=1) as held:
        first = app.start_request("PATCH", f"/books/{book}", json={"title": "At Noon"}, headers={"If-Match": "*"})
        await held.wait_for_or(first.task)
        others = [
            app.start_request("PATCH", f"/books/{book}", json={"price_cents": 1234}, headers={"If-Match": "*"}),
            app.start_request("PUT", f"/books/{book}/stock", json={"stock": stock + 1}),
        ]
        await settled(shop, others)
    statuses = [(await one).status for one in (first, *others)]
    found, expected = await row_of(shop, book), {"title": "At Noon", "price_cents": 1234, "stock": stock + 1}
    expect(
        statuses == [200, 200, 200] and found | expected == found,
        f"While an edit of the title was about to be stored, the price was edited and the stock counted: {statuses}. "
        f"{difference(found, expected)}",
        because=LOST,
        section=EDITS,
    )


async def row_of(shop, book):
    """The columns that an editor may change, and the stock, as JSON has them."""
    [row] = await shop.rows(f"SELECT {', '.join(COLUMNS)} FROM books WHERE id = $1", book)
    return row | {"published_on": row["published_on"] and row["published_on"].isoformat()}


async def rows_but(shop, book):
    return await shop.value("SELECT string_agg(b::text, '|' ORDER BY id) FROM books b WHERE id <> $1", book)


def difference(found, expected):
    wrong = [name for name in expected if found[name] != expected[name]]
    return " ".join(f"`{name}` is now {found[name]!r}. Expected: {expected[name]!r}." for name in wrong)
