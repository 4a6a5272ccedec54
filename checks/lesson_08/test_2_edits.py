"""Lesson 08: many customers at once. Here: editors of a book."""

from checks.kit.report import expect
from checks.kit.testbed.invariants import read_ledger
from checks.kit.testbed.waiting import served_meanwhile
from checks.kit.wire import committing
from checks.lesson_08.at_once import following, in_step, while_writing
from checks.lesson_08.shopping import expect_status, expect_sums, order_of, row_of, statuses

VERSION = "Compare the version where you write"
GONE = "An editor's work is gone, and nobody is told: both have read that their edit is saved."
UNSEEN = "The editor is told that all is well, and learns the current ETag, but has never seen the current book."
BLIND = "A client that does not say what it has read overwrites the edits of others in between."


async def test_an_edit_says_what_it_changes(apps, shop):
    """`PATCH /books/{id}` needs the book's current ETag as `If-Match`: 428 without one, 412 if the book has changed."""
    ids = await shop.seed(books=2, authors=1)
    for number, change in enumerate(({"title": "It's New"}, {"price_cents": 4321}, {"isbn": "9781234567897"})):
        book, [field] = ids.books[number % 2], change
        first = await apps[0].get(f"/books/{book}")
        expect_etag(first)
        before = await row_of(shop, book)
        bare = await apps[1].patch(f"/books/{book}", json=change)
        expect_status(bare, 428, f"An edit of {field} without If-Match", BLIND, VERSION)
        for never in ('"no such version"', '"99999999999"', f'"{10**20}"'):
            wrong = await apps[1].patch(f"/books/{book}", json=change, headers={"If-Match": never})
            expect_status(
                wrong, 412, f"An edit of {field} with If-Match {never}, never an ETag of this book", BLIND, VERSION
            )
        await expect_stored(shop, book, before, "edits that were refused")
        saved = await apps[0].patch(f"/books/{book}", json=change, headers=if_match(first))
        expect_status(saved, 200, f"An edit of {field} with the ETag of the book", section=VERSION)
        expect_etag(saved)
        await expect_stored(shop, book, before | change, f"an edit of {field}")
        # at once, and in the other process: an ETag made of seconds, or one that a process remembers, is no version
        late = await apps[1].patch(f"/books/{book}", json={"title": "Too Late"}, headers=if_match(first))
        expect_status(late, 412, f"An edit with the ETag that was current before the edit of {field}", GONE, VERSION)
        await expect_stored(shop, book, before | change, "an edit that came too late")
        again = await apps[1].patch(f"/books/{book}", json={"price_cents": 990 + number}, headers=if_match(saved))
        expect_status(again, 200, "An edit with the ETag that came with the last edit", section=VERSION)
        seen = await apps[0].get(f"/books/{book}")
        expect(
            seen.headers.get("etag") == again.headers.get("etag") != saved.headers.get("etag"),
            f"GET shows the ETag {seen.headers.get('etag')}, the last edit returned {again.headers.get('etag')}, and "
            f"the one before {saved.headers.get('etag')}.",
            because="A client that uses the ETag of its own edit is told that somebody else has changed the book.",
            section=VERSION,
        )
        await shop.execute(
            "UPDATE books SET title = title || '!' WHERE id = $1", book, step="the title is changed in SQL"
        )
        late = await apps[0].patch(f"/books/{book}", json={"price_cents": 1}, headers=if_match(seen))
        expect_status(late, 412, "An edit with an ETag from before a change by another program", GONE, VERSION)
    for change in ({}, {"price_cents": (await row_of(shop, book))["price_cents"]}):
        what = f"An edit that changes nothing ({change})"
        late = await apps[0].patch(f"/books/{book}", json=change, headers=if_match(seen))
        expect_status(late, 412, f"{what}, with an ETag that is out of date", UNSEEN, VERSION)
        bare = await apps[1].patch(f"/books/{book}", json=change)
        expect_status(bare, 428, f"{what}, without If-Match", BLIND, VERSION)
    change_both = "UPDATE books SET title = $2, price_cents = $3 WHERE id = $1"
    await shop.execute(change_both, book, "Area 5", 1100)
    seen = await apps[0].get(f"/books/{book}")
    await shop.execute(change_both, book, "Area 51", 100, step="another title and price, with the same digits in a row")
    late = await apps[1].patch(f"/books/{book}", json={"price_cents": 1}, headers=if_match(seen))
    expect_status(late, 412, 'An edit with the ETag of "Area 5" at 1100, which is "Area 51" at 100 now', GONE, VERSION)
    body = {"isbn": "978-0-1111", "title": "Made", "author_id": ids.authors[0], "price_cents": 900}
    made = await apps[0].post("/books", json=body)
    expect_status(made, 201, "A new book", section=VERSION)
    expect_etag(made)
    edited = await apps[1].patch(f"/books/{made['id']}", json={"title": "Made Better"}, headers=if_match(made))
    expect_status(edited, 200, "An edit with the ETag that POST /books returned", section=VERSION)
    nowhere = await apps[0].patch(f"/books/{made['id'] + 100_000}", json={"title": "x"}, headers=if_match(made))
    expect_status(nowhere, 404, "An edit of a book that does not exist", section=VERSION)


async def test_of_two_edits_at_once_one_wins(apps, shop, wire, login, provider):
    """Of two edits with the same ETag at the same moment one gets 200, the other 412, and the book is the winner's."""
    ids = await shop.seed(books=4, customers=1, stock=10)
    ledger = await read_ledger(shop)
    pairs = (
        ({"title": "Ann's Title"}, {"title": "Bo's Title"}),
        ({"price_cents": 1111}, {"title": "Bo's Title"}),
        ({"isbn": "9789999999999", "price_cents": 7}, {"title": "Bo's", "price_cents": 8}),
    )
    for book, changes in zip(ids.books, pairs, strict=False):
        first, before = await apps[0].get(f"/books/{book}"), await row_of(shop, book)
        responses = await in_step(wire, shop, *edits(apps, book, first, changes))
        after = await row_of(shop, book)
        expect(
            sorted(one.status for one in responses) == [200, 412],
            f"Two editors had read the same book and saved at the same moment, {changes[0]} and {changes[1]}: "
            f"{statuses(responses)}. Expected: 200 and 412. Stored is now {after}.",
            because=GONE
            if all(one.ok for one in responses)
            else "An edit that could be saved is refused, or the editor does not learn why.",
            section=VERSION,
        )
        winner = [one.status for one in responses].index(200)
        await expect_stored(shop, book, before | changes[winner], "one of two edits won")
        again = await apps[0].get(f"/books/{book}")
        expect(
            again.headers.get("etag") == responses[winner].headers.get("etag"),
            f"The winner's response has the ETag {responses[winner].headers.get('etag')}, and GET then shows "
            f"{again.headers.get('etag')}.",
            because="The winner's next edit is refused, although nobody else has changed the book.",
            section=VERSION,
        )
        late = await apps[1].patch(f"/books/{book}", json=changes[1 - winner], headers=if_match(again))
        expect_status(late, 200, "The loser read the book again and saved", section=VERSION)
        await expect_stored(
            shop, book, before | changes[winner] | changes[1 - winner], "both edits, one after the other"
        )
    await expect_etags_belong_to_bodies(apps, shop, wire, ids.books[0])
    book = ids.books[3]
    first, before = await apps[0].get(f"/books/{book}"), await row_of(shop, book)
    [edit] = edits(apps[:1], book, first, [{"title": "Sold Meanwhile"}])
    order = {"json": order_of({book: 2}), "headers": login(ids.customers[0])}
    sale = await while_writing(wire, shop, edit, lambda: apps[1].start_request("POST", "/orders", **order))
    expected = before | {"stock": 8} | ({"title": "Sold Meanwhile"} if sale[0].ok else {})
    expect(
        sale[0].status in (200, 412) and sale[1].status == 201,
        f"An edit of a title, and an order of the book at the same moment: {statuses(sale)}. Expected: 200 or 412, and "
        "201.",
        because="A book cannot be edited while it sells, or cannot be sold while somebody edits it.",
        section=VERSION,
    )
    await expect_stored(shop, book, expected, f"an edit ({sale[0].status}) and an order of 2 copies")
    await expect_sums(shop, ledger)


async def expect_etags_belong_to_bodies(apps, shop, wire, book):
    """The book in a response is the one that its ETag names, also if it is edited before the response is complete."""
    path = f"/books/{book}"
    moments = (
        # a SELECT that is held here has its snapshot already: it returns the book from before the edit
        ("GET /books/{id} was reading the book", "GET", lambda _: {}, lambda one: one.data),
        ("PATCH /books/{id} had committed, and sent another statement", "PATCH", saving, following(committing)),
    )
    for what, method, options, moment in moments:
        read = await apps[0].get(path)
        async with wire.hold(moment, limit=1) as held:
            request = apps[0].start_request(method, path, **options(read))
            if await held.wait_for_or(request.task):
                read = await apps[1].get(path)
                await served_meanwhile(apps[1], "PATCH", path, **saving(read, "Bo Again"))
        response, now = await request, await apps[1].get(path)
        expect(
            response.headers.get("etag") != now.headers.get("etag") or response["title"] == now["title"],
            f"{what} when another editor saved a new title. The response has the title {response.json.get('title')!r} "
            f"with the ETag {response.headers.get('etag')}. This is the ETag of the title {now['title']!r}.",
            because="An editor who sends this ETag back overwrites the other edit without having seen it.",
            section=VERSION,
        )


def edits(apps, book, read, changes):
    """What to send for `in_step`: an edit for each change, with the ETag of what was read, at the next process."""
    return [
        lambda app=app, change=change: app.start_request("PATCH", f"/books/{book}", json=change, headers=if_match(read))
        for app, change in zip(apps, changes, strict=True)
    ]


def saving(read, title="Ann Again"):
    """The options of a PATCH that changes the title of the book in this response."""
    return {"json": {"title": title}, "headers": if_match(read)}


def if_match(response):
    return {"If-Match": response.headers.get("etag", "")}


def expect_etag(response):
    expect(
        response.headers.get("etag"),
        f"{response.request} → {response.status}, without the header ETag.",
        because="Without an ETag a client cannot say which version it has read.",
        section=VERSION,
    )


async def expect_stored(shop, book, expected, after):
    """The row is as expected, in all columns that an editor or a sale changes."""
    row = await row_of(shop, book)
    expect(
        row == expected,
        f"After {after} the row is {row}. Expected: {expected}.",
        because="The book is not as the responses say: a saved edit is gone, or a refused one is stored.",
        section=VERSION,
    )
