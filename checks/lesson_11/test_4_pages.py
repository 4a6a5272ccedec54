"""Lesson 11: what the API promises. Here: the list of books, page by page."""

import base64
import re
from datetime import UTC, datetime, timedelta

from checks.kit.report import expect
from checks.lesson_11.members import stocked
from checks.lesson_11.shape import expect_problem, expect_status

OFFSET = "OFFSET against keyset"
PLACE = "A cursor names a place in the order"
ENDS = "A partner copies the catalogue page by page. The copy ends here, or the program of the partner fails."
MISSING = "A partner copies the catalogue page by page. The copy lacks books, or has some of them twice."
BROKEN = "A client has kept a cursor, or half of one. It does not learn that the cursor is what is wrong."

HUGE = "One request reads the whole catalogue into memory, and the others wait for it."
UNTOLD = "The client gets another number of books than it has asked for, and does not learn why."
UNKNOWN_LIMIT = "The client does not learn that its limit is the reason."
WRONG_PLACE = "The client takes these books for the next page, and its copy of the list is wrong."

BOOK = {
    *("id", "isbn", "title", "subtitle", "author_id", "price_cents", "discount_percent", "published_on", "stock"),
    *("revision", "created_at", "updated_at"),
}
"""The fields of a book in a response."""

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


async def test_walking_the_pages_shows_each_book_once(apps, shop):
    """A walk along the cursors of `GET /books` shows each book once, newest first, whatever the size of pages."""
    ids = await stocked(shop, books=24)
    everybody = [*ids.books, *ids.others.books]
    times = [NOON] * 7  # one import, one time
    times += [NOON + timedelta(microseconds=n) for n in (1, 2, 3, 998, 999, 1000, 1001)]  # within two milliseconds
    times += [NOON - timedelta(days=n // 2) for n in range(len(everybody) - len(times) - 2)]
    times += [datetime(1969, 7, 20, 20, 17, 40, 123457, UTC)] * 2
    for book, time in zip(everybody, times, strict=True):
        await shop.execute("UPDATE books SET created_at = $2 WHERE id = $1", book, time)
    created = dict(zip(everybody, times, strict=True))
    for limit in (1, 2, 7, 25):
        shown = []
        pages = walk(apps, limit)
        async for page in pages:
            expect(
                len(page) <= limit,
                f"GET /books?limit={limit} shows {len(page)} books.",
                because="A client gets more than it can hold.",
                section=PLACE,
            )
            shown += page
        expect_walk(shown, everybody, created, f"pages of {limit}")
    found = {one["id"]: one async for page in walk(apps, 100, whole=True) for one in page}
    for book in (ids.books[0], ids.books[-1]):
        read = (await apps[0].get(f"/books/{book}")).json
        expect(
            found[book] == read,
            f"GET /books shows book {book} as {found[book]}. GET /books/{book} shows {read}.",
            because="A client has to know two shapes of one thing, or reads what was meant for the shop only.",
            section="The document against the responses",
        )
        expect(
            set(read) == BOOK,
            f"GET /books/{book} shows {', '.join(read)}. Expected: {', '.join(sorted(BOOK))}, as before.",
            because="A client misses a field that it needs, or reads what was meant for the shop only.",
            section="The document against the responses",
        )
    await shop.execute("DELETE FROM order_lines; DELETE FROM reviews; DELETE FROM wishes")
    shown, gone = [], 0
    async for page in walk(apps, 3):
        shown += page
        if not gone and created[page[-1]] == NOON:  # seven books have this time, and the page ends among them
            gone = page[-1]
            await shop.execute("DELETE FROM books WHERE id = $1", gone, step="the last book of a page is deleted")
    stayed = [book for book in everybody if book != gone]
    expect_walk([book for book in shown if book != gone], stayed, created, "pages of 3, after a deletion")


async def test_pages_hold_while_books_come_and_go(apps, shop):
    """A book that is there during the whole walk is shown once, while others are added, deleted and edited."""
    ids = await stocked(shop, books=30)
    everybody = [*ids.books, *ids.others.books]
    created = {}
    for n, book in enumerate(everybody):
        created[book] = NOON - timedelta(minutes=n)
        await shop.execute("UPDATE books SET created_at = $2 WHERE id = $1", book, created[book])
    await shop.execute("DELETE FROM order_lines; DELETE FROM reviews; DELETE FROM wishes")
    gone, shown, turn = set(), [], 0
    async for page in walk(apps, 4):
        shown += page
        turn += 1
        if turn > 6:
            continue
        ahead = [book for book in everybody if book not in shown and book not in gone]
        leaving = {page[-1], shown[0], *ahead[1:2]}  # the last one of the page is where the next page begins
        gone |= leaving
        await shop.execute("DELETE FROM books WHERE id = ANY($1)", list(leaving), step="books are deleted")
        for number, time in (
            (turn * 2, NOON + timedelta(minutes=turn)),
            (turn * 2 + 1, NOON - timedelta(seconds=turn)),
        ):
            new = await shop.add(
                "books",
                isbn=f"97855{number:08}",
                title="Another",
                author_id=ids.authors[0],
                price_cents=900,
                created_at=time,
            )
            created[new] = time
        edited = next(iter(ahead[2:3]), 0)
        await apps[0].patch(f"/books/{edited}", json={"title": f"Edited {turn}"}, headers={"If-Match": "*"})
    stayed = [book for book in everybody if book not in gone]
    expect_walk([book for book in shown if book in stayed], stayed, created, "pages of 4 while books came and went")
    expect(
        len(set(shown)) == len(shown),
        f"Of {len(shown)} books that a walk has shown, {len(shown) - len(set(shown))} were shown twice.",
        because=MISSING,
        section=OFFSET,
    )


async def test_a_bad_cursor_or_limit_is_refused(app, shop, wire):
    """A limit outside of 1 to 100 and a text that is not a cursor get 400 or 422. A page has 20 books by default."""
    ids = await stocked(shop, books=110)
    for query, count in (("", 20), ("?limit=100", 100), ("?limit=1", 1)):
        page = await app.get(f"/books{query}")
        expect_status(page, (200,), f"GET /books{query}", ENDS, PLACE)
        expect(
            len(page["books"]) == count,
            f"There are {len(ids.books) + 1} books. {page.request} shows {len(page['books'])}. Expected: {count}.",
            because="A client gets fewer books than it has asked for, or more than it can hold.",
            section=PLACE,
        )
    for limit in ("0", "-1", "101", "1000000", "99999999999999999999", "ten", "1.5", ""):
        refused = await app.get(f"/books?limit={limit}")
        expect_status(
            refused,
            (400, 422),
            f"A limit of {limit or 'nothing'}",
            UNKNOWN_LIMIT if not refused.ok else HUGE if len(refused["books"]) > 100 else UNTOLD,
            PLACE,
        )
    with wire.watching() as seen:
        good = (await app.get("/books?limit=3"))["next"]
        await app.get("/books", params={"limit": 3, "cursor": good})
    expect(
        seen.rows <= 30,
        f"Two pages of 3 books, of {len(ids.books) + 1} that there are: PostgreSQL sent {seen.rows} rows. Expected: at "
        "most 30.",
        because="Each page reads the whole catalogue into memory, and takes longer with every book that is added.",
        section=PLACE,
    )
    for bad in ("nonsense", "' OR 1=1 --", "\N{BOOKS}", "not a cursor", "a" * 5000, "\0"):
        refused = await app.get("/books", params={"cursor": bad})
        harm = WRONG_PLACE if refused.ok else BROKEN
        expect_status(refused, (400, 422), f"The cursor {bad[:20]!r}", harm, PLACE)
        expect_problem(refused, f"The cursor {bad[:20]!r}")
    for bad in spoiled(str(good)):
        response = await app.get("/books", params={"cursor": bad})
        expect_status(response, (200, 400, 422), f"The cursor {bad[:40]!r}; a good one is {good!r}", BROKEN, PLACE)
    again = await app.get("/books", params={"cursor": good, "limit": 3})  # a cursor may hold the limit of its walk
    expect_status(again, (200,), "A good cursor after all bad ones", ENDS, PLACE)


def spoiled(good):
    """What may become of a cursor on its way, and what people write by hand."""
    for place in range(len(good)):
        yield (
            good[:place] + good[place + 1 :],
            good[:place] + "9" + good[place:],
            good[:place] + ("x" if good[place] != "x" else "0") + good[place + 1 :],
        )[place % 3]
    yield from (good[::-1], good[: len(good) // 2], good * 2, good.upper(), good.lower(), f" {good} ", f"-{good}")
    yield from (
        "",
        "0",
        "-1",
        "1e309",
        "9" * 30,
        "9" * 400,
        "9" * 45,
        "null",
        "NaN",
        "[]",
        "e30=",
        "W10=",
        "bnVsbA==",
        "=",
    )
    yield from ("0.0", "-99999999999999999.1", "1.99999999999999999999", "١", "1_0", "9223372036854775808")
    yield from with_other_numbers(good)


def with_other_numbers(good):
    """The cursor with another value in place of each number, if need be inside of its base64."""
    forms = [(good, str)]
    for alphabet in ("+/", "-_"):
        try:
            inner = base64.b64decode(good + "=" * (-len(good) % 4), alphabet.encode(), validate=True).decode()
        except ValueError:
            continue
        forms.append(
            (inner, lambda text, alphabet=alphabet: base64.b64encode(text.encode(), alphabet.encode()).decode())
        )
    for text, encode in forms:
        for number in re.finditer(r"\d+", text):
            for other in ("1e999", "1" + "0" * 30, "-1", "null", "[" * 50 + "]" * 50):
                yield encode(text[: number.start()] + other + text[number.end() :])


def as_base64(alphabet, text):
    return base64.b64encode(text.encode(), alphabet.encode()).decode()


async def walk(apps, limit, whole=False):
    """The ids on each page, or the books, along the cursors. The processes of the app take turns."""
    cursor, pages, seen = None, 0, set()
    while True:
        params = {"limit": limit} | ({} if cursor is None else {"cursor": cursor})
        response = await apps[pages % len(apps)].get("/books", params=params)
        other = f", from another process than page {pages}" if pages and len(apps) > 1 else ""
        expect_status(response, (200,), f"Page {pages + 1} of a walk{other}", ENDS, PLACE)
        books = response["books"]
        yield books if whole else [one["id"] for one in books]
        pages, cursor = pages + 1, response["next"]
        if cursor is None:
            return
        expect(
            cursor not in seen and pages < 300,
            f"Page {pages} of a walk has the cursor of an earlier page, {cursor!r}.",
            because="A client that follows the cursors never comes to an end.",
            section=PLACE,
        )
        seen.add(cursor)


def expect_walk(shown, everybody, created, how):
    twice = sum(shown.count(book) > 1 for book in set(shown))
    missing = [book for book in everybody if book not in shown]
    expect(
        not twice and not missing,
        f"A walk with {how} has shown {len(set(shown))} of {len(everybody)} books, and {twice} of them more than once. "
        + (f"Missing is book {missing[0]}, created at {created[missing[0]].isoformat()}." if missing else ""),
        because=MISSING,
        section=PLACE,
    )
    order = [created[book] for book in shown]
    expect(
        order == sorted(order, reverse=True),
        f"A walk with {how} is not sorted by created_at, the newest book first.",
        because="A client that looks for new books stops at the first one that it knows, and misses the rest.",
        section=PLACE,
    )
