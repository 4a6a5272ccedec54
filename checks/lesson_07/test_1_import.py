"""Lesson 07: what belongs to one transaction. Here: the import of a publisher's list."""

import asyncio
import json

import pytest

from checks.kit.report import expect, plural
from checks.kit.testbed.waiting import wait_quiescent
from checks.kit.wire import committing
from checks.lesson_07.lists import (
    LOST_LINES,
    POISONED,
    as_stored,
    bad_lines,
    columns_of,
    expect_reported,
    hyphenated,
    line,
    lines_of_a_kind,
    longest_list,
    unusual_lines,
)
from checks.lesson_07.orders import LONG, PATIENCE, at_each_commit, until_blocked

UNSEEN = "A SELECT can miss a row that was just added"
SENDS = "What flush, commit and a savepoint send"
HALF = (
    "If the process ends at that moment, a part of the list is stored. Nobody knows which lines these are. Somebody "
    "has to find it out by hand."
)
UNDER_WAY = 3
"""Seconds for which a list waits for one under way. As handed out, the service lets a statement wait for 2.5 s."""
MANY_LINES = 170
"""Seconds for a list of full length. With a savepoint for each line it takes a minute on a very busy machine."""
OUT_OF_DATE = "What the service remembers of the shop is out of date as soon as somebody else changes it."
AGAIN = "A publisher who is not sure whether a list has arrived sends it again. That must be safe."
BY_ISBN = "SELECT * FROM books"
IN_JSON = {"content-type": "application/json"}
STOP = """
    CREATE FUNCTION stop() RETURNS trigger LANGUAGE plpgsql AS
    $$BEGIN RAISE EXCEPTION 'stopped' USING ERRCODE = 'query_canceled'; END$$;
    CREATE TRIGGER stop BEFORE INSERT ON books FOR EACH ROW WHEN (NEW.title = '{title}') EXECUTE FUNCTION stop();
"""


async def test_good_lines_are_stored_and_bad_ones_are_named(app, shop):
    """`POST /books/import` stores exactly the good lines of a list, and gives the reason for each other line."""
    ids = await shop.seed(authors=2, books=2)
    author = ids.authors[1]
    [taken] = [row["isbn"] for row in await shop.rows("SELECT isbn FROM books WHERE id = $1", ids.books[0])]
    good = [*unusual_lines(author), *(line(n, author) for n in range(24)), *lines_of_a_kind(author)]
    cheap = [line(n, author, price_cents=0) for n in range(200, 245)]
    bad = bad_lines(author, ids.authors[0] + 5000, taken)
    unknown = bad[3]
    lists = {
        "the bad lines first": [*bad, *good[6:9]],
        "an unknown author last": [*good[9:12], unknown],
        "only bad lines": bad,
        "good and bad lines among each other": [
            *good[:3],
            bad[5],
            *good[3:6],
            *cheap,
            *good[12:20],
            unknown,
            bad[0],
            *good[20:],
        ],
    }
    others = "SELECT * FROM books WHERE isbn NOT LIKE '9789%' ORDER BY id"
    there_before = await shop.rows(others)
    for kind, listed in lists.items():
        before = await shop.count("books")
        body = json.dumps(listed)  # in ASCII: a lone surrogate has no UTF-8
        response = await app.post("/books/import", content=body, headers=IN_JSON, timeout=LONG)
        stored = {row["isbn"]: row for row in await shop.rows(BY_ISBN)}
        wanted = [one in good for one in listed]
        there = [isinstance(one, dict) and as_stored(one["isbn"]) in stored for one in listed]
        missing = [n for n, (want, one) in enumerate(zip(wanted, there, strict=True), 1) if want and not one]
        extra = len(stored) - before - sum(wanted) + len(missing)
        expect(
            response.status == 200 and not missing and not extra,
            f"POST /books/import with a list of {len(listed)} ({kind}): {response.status}; of "
            f"{plural(sum(wanted), 'good line')}, {len(missing)} are not stored{first_of(missing, listed)}; "
            f"{plural(extra, 'other book')} stored. Expected: 200, every good line, and no other book.",
            because=LOST_LINES,
            section=POISONED,
        )
        expect_reported(response, listed, wanted, stored, kind)
        now = await shop.rows(others)
        expect(
            now == there_before,
            "A list with an ISBN that is taken. Expected: no book that was in the shop before it changes. Changed: "
            f"{next(([a, b] for a, b in zip(there_before, now, strict=False) if a != b), 'their number')}.",
            because="A line with a wrong ISBN overwrites another book, with its price and its stock.",
            section=POISONED,
        )
        different = [
            (one, {name: stored[as_stored(one["isbn"])][name] for name in columns_of(one)})
            for one, want in zip(listed, wanted, strict=True)
            if want and any(stored[as_stored(one["isbn"])][name] != value for name, value in columns_of(one).items())
        ]
        pair = different[0] if different else ()
        expect(
            not different,
            f"Stored with other values than in the list: {' became '.join(map(str, pair))}.",
            because="The shop sells the book under another title, or at another price, than the publisher's list says.",
            section=POISONED,
        )
    newcomer = await shop.add("authors", name="Bea O'New")
    gone = good[6]
    await shop.execute("DELETE FROM books WHERE isbn = $1", gone["isbn"], step=f"book {gone['isbn']} is deleted")
    response = await app.post("/books/import", json=[gone, line(120, newcomer)])
    expect(
        response.status == 200 and response["stored"] == 2,
        f"After other lists, an author was added, and a book deleted. A list with a line of that author, and with the "
        f"ISBN of that book: {response}. Expected: 200, and both stored.",
        because=OUT_OF_DATE,
        section=UNSEEN,
    )
    await shop.execute("DELETE FROM books WHERE author_id = $1", newcomer)
    await shop.execute("DELETE FROM authors WHERE id = $1", newcomer, step=f"author {newcomer} is deleted")
    response = await app.post("/books/import", json=[line(121, newcomer)])
    expect(
        response.status == 200 and response["stored"] == 0,
        f"After other lists, an author and their books were deleted. A list with a line of that author: {response}. "
        "Expected: 200, and none stored.",
        because=OUT_OF_DATE,
        section=UNSEEN,
    )


async def test_of_two_equal_lines_the_first_is_stored(app, shop):
    """Of two lines with one ISBN, in any spelling, the first good one is stored, and the report names the other."""
    ids = await shop.seed(authors=1)
    [author] = ids.authors
    first = line(1, author, title="The first", isbn="978900001X")
    second = line(2, author, title="The second", isbn=hyphenated(first["isbn"]), price_cents=1200)
    third = line(3, author, title="The third", isbn=first["isbn"].lower())
    unknown, known = line(8, author + 5000), line(8, author)
    cheap, dear = line(9, author, price_cents=0), line(9, author, isbn=hyphenated(line(9, author)["isbn"]))
    listed = [line(4, author), first, unknown, cheap, second, line(6, author), third, known, dear]
    wanted = [one not in (second, third, unknown, cheap) for one in listed]
    response = await app.post("/books/import", json=listed)
    stored = {row["isbn"]: row for row in await shop.rows(BY_ISBN)}
    found = stored.get(as_stored(first["isbn"]), {"title": "nothing"})["title"]
    good = sum(as_stored(one["isbn"]) in stored for one, want in zip(listed, wanted, strict=True) if want)
    expect(
        response.status == 200 and found == "The first" and good == 5,
        "Lines 2, 5 and 7 of a list have the same ISBN. Lines 3 and 8 have a second one, and the author of line 3 "
        "does not exist. Lines 4 and 9 have a third one, and the price of line 4 is 0. "
        f"{response.status}. Stored of lines 2, 5 and 7: {found!r}; of the 5 good lines: {good}. "
        "Expected: 200, 'The first', and 5.",
        because="Publishers' lists hold the same book twice, in two spellings of its ISBN. One such pair must not stop "
        "the import of all the others.",
        section=UNSEEN,
    )
    expect_reported(response, listed, wanted, stored, "with lines of one ISBN")


async def test_a_list_is_stored_as_a_whole(app, shop, wire):
    """The good lines of a list become visible together, or none does if the database is lost before that."""
    ids = await shop.seed(authors=2, books=1)
    [author, newcomer] = ids.authors
    taken = await shop.value("SELECT isbn FROM books WHERE id = $1", ids.books[0])
    unknown = max(ids.authors) + 5000
    before = await shop.count("books")
    listed, wanted = longest_list(author, newcomer, unknown, taken)
    response, seen, early = await at_each_commit(
        app,
        wire,
        lambda: app.start_request("POST", "/books/import", json=listed, timeout=MANY_LINES),
        lambda: shop.count("books"),
        PATIENCE,
        MANY_LINES,
    )
    visible = [count - before for count in seen]
    partly = [count for count in visible[:-1] if 0 < count != visible[-1]]
    expect(
        response.status == 200 and not partly,
        f"A list of {len(listed)}, with {sum(wanted)} good lines: {response.status}. Before each COMMIT and at the "
        f"end, others saw this many of its lines: {shortened(visible)}. Expected: 200; 0 before, and {sum(wanted)} at "
        "the end.",
        because=HALF if partly else LOST_LINES,
        section=SENDS,
    )
    expect_reported(response, listed, wanted, {row["isbn"]: row for row in await shop.rows(BY_ISBN)}, "of full length")
    expect(
        visible[-1] == sum(wanted),
        f"A list of {len(listed)}, with {sum(wanted)} good lines: {visible[-1]} of its lines are stored.",
        because=LOST_LINES,
        section=POISONED,
    )
    expect(
        not early,
        "The response came while a COMMIT of the import was still on its way.",
        because="If the COMMIT fails now, the publisher has a report of books that are not stored.",
        section=SENDS,
    )
    before += sum(wanted)
    for number, when in enumerate(("its statements", "its COMMIT"), 1):
        another = [line(n, author) for n in range(number * 2000, number * 2000 + 10)]
        moment = committing if when == "its COMMIT" else lambda statement: statement.changes
        async with wire.hold(moment) as held:
            request = app.start_request("POST", "/books/import", json=another)
            for _ in range(0 if when == "its COMMIT" else 3):  # so that it is in the middle
                if await held.wait_for_or(request.task):
                    held.release_one()
            await held.wait_for_or(request.task)
            await wire.cut()
        response = await request
        await wait_quiescent(app, wire)
        stored = await shop.count("books") - before
        before += stored
        expect(
            (stored, response.ok) in ((0, False), (10, True)),  # or the service has tried again by itself
            f"The connection was cut while {when} of an import {'was' if number > 1 else 'were'} under way: "
            f"{response.status}, and {plural(stored, 'line')} of 10 stored. Expected: 503, and none.",
            because="The response does not tell what is stored. The publisher cannot know which lines to send again.",
            section=SENDS,
        )
    another = [line(n, author) for n in range(6000, 6010)]
    async with wire.lost_response(committing, limit=1):
        response = await app.post("/books/import", json=another)
    await wait_quiescent(app, wire)
    stored = await shop.count("books") - before
    reported = response["stored"] if response.status == 200 else None
    expect(
        stored == 10 and (reported == 10 or response.status == 503),
        f"The response to the COMMIT of an import was lost: {response.status}. Stored: {plural(stored, 'line')} of 10; "
        f"reported: {reported}. Expected: 503, or a report of 10 lines.",
        because="The publisher reads that the shop has refused each line, and the shop has stored them.",
        section=SENDS,
    )


@pytest.mark.start_early
async def test_a_list_that_is_sent_again_adds_nothing(apps, shop, wire):
    """A list that is sent again adds nothing and names each line, even while the first one is under way."""
    app, another = apps[0], apps[1]
    ids = await shop.seed(authors=1)
    [author] = ids.authors
    before = await shop.count("books")
    listed = [line(n, author, isbn=hyphenated(line(n, author)["isbn"])) for n in range(8)]
    longer = [*listed[:4], line(50, author), *listed[4:]]
    async with wire.hold(committing, limit=1) as commits:
        requests = [app.start_request("POST", "/books/import", json=listed)]
        await commits.wait_for_or(requests[0].task)
        requests.append(another.start_request("POST", "/books/import", json=longer))
        await until_blocked(shop, [request.task for request in requests])
    responses = [*await asyncio.gather(*requests)]
    responses += [await each.post("/books/import", json=listed) for each in (app, another, app)]
    statuses = [response.status for response in responses]
    stored = await shop.count("books") - before
    counts = [response.json["stored"] if response.ok else None for response in responses]
    overtaken = counts[:2] == [0, 9]  # one INSERT that is its own transaction: what was held had not begun
    expect(
        statuses == [200] * 5 and stored == 9 and (overtaken or counts[:2] == [8, 1]) and counts[2:] == [0, 0, 0],
        f"A list of 8 came to one process of the service; at the same moment it came with one more line to another "
        f"process, and then three times as before: {statuses}. Stored: {stored}; the reports say {counts}. "
        "Expected: 200 each time, 9, and [8, 1, 0, 0, 0].",
        because=AGAIN,
        section=POISONED,
    )
    by_isbn = {row["isbn"]: row for row in await shop.rows(BY_ISBN)}
    added = [overtaken or one not in listed for one in longer]
    expect_reported(responses[1], longer, added, by_isbn, "that came again, and longer")
    for response in [responses[0]] * overtaken + responses[2:]:
        expect_reported(response, listed, [False] * 8, {}, "that was sent again")
    await expect_safe_beside_two_books(app, another, shop, wire, [line(n, author) for n in range(70, 75)])
    await expect_safe_after_a_stop(app, another, shop, [line(n, author) for n in range(80, 85)])
    await expect_safe_while_long(app, another, shop, wire, [line(n, author) for n in range(60, 64)])


async def expect_safe_beside_two_books(app, another, shop, wire, listed):
    """`POST /books` adds two books of a list meanwhile, one after the other: their lines are bad, the others stored."""
    books = [listed[1], listed[3]]
    async with wire.hold(committing, limit=2) as commits:
        adds = []
        for number, book in enumerate(books, 1):
            adds.append(app.start_request("POST", "/books", json=book))
            await commits.count_within(number, timeout=LONG)
        imports = another.start_request("POST", "/books/import", json=listed, timeout=LONG)
        await until_blocked(shop, [imports.task])
        commits.release_one()
        await asyncio.wait({one.task for one in adds}, return_when=asyncio.FIRST_COMPLETED)
        await until_blocked(shop, [imports.task])
    added, response = await asyncio.gather(*adds), await imports
    stored = {row["isbn"]: row for row in await shop.rows(BY_ISBN)}
    expect(
        [one.status for one in added] == [201, 201] and response.status == 200,
        f"POST /books added two books, {' and '.join(map(str, added))}, while another process imported a list with "
        f"both: {response}. Expected: 201 twice, and 200.",
        because="A book that somebody else adds at this moment stops the whole list.",
        section=UNSEEN,
    )
    expect_reported(response, listed, [one not in books for one in listed], stored, "with two books just added")


async def expect_safe_after_a_stop(app, another, shop, listed):
    """PostgreSQL stops an import in its middle, as at a time limit. Then the list comes again, to each process."""
    before = await shop.count("books")
    stop = STOP.format(title=listed[2]["title"])
    await shop.execute(stop, step="the database stops the INSERT of the third line with query_canceled")
    stopped = await app.post("/books/import", json=listed, timeout=LONG)
    partly = await shop.count("books") - before
    expect(
        not stopped.ok and partly == 0,
        f"PostgreSQL stopped the third line of a list, as it does at a time limit: {stopped.status}, and "
        f"{plural(partly, 'line')} of {len(listed)} stored. Expected: 503, and none.",
        because=HALF,
        section=SENDS,
    )
    await shop.execute("DROP FUNCTION stop CASCADE", step="and it no longer does")
    responses = [await each.post("/books/import", json=listed) for each in (another, app)]
    counts = [response["stored"] if response.ok else None for response in responses]
    expect(
        counts == [len(listed), 0],
        f"PostgreSQL had stopped an import, {stopped.status}. Then the list came to another process of the service, "
        f"and once more to the same one: {'; '.join(str(response.status) for response in responses)}. The reports say "
        f"{counts}. Expected: 200 twice, and [{len(listed)}, 0].",
        because=AGAIN,
        section=POISONED,
    )


async def expect_safe_while_long(app, another, shop, wire, listed):
    """A list that is long under way and then fails has come again meanwhile: in the end it is stored, once."""
    before = await shop.count("books")
    async with wire.hold(committing, limit=1) as commits:
        first = app.start_request("POST", "/books/import", json=listed)
        await commits.wait_for_or(first.task)
        second = another.start_request("POST", "/books/import", json=listed, timeout=LONG)
        await until_blocked(shop, [second.task])
        await asyncio.wait({second.task}, timeout=UNDER_WAY)
        under_way = {statement.connection for statement in commits.waiting}
        await wire.cut(lambda connection: connection.id in under_way)
    await asyncio.wait({first.task, second.task})
    response = await second
    expect(
        response.status == 200 or (response.status == 503 and "retry-after" in response.headers),
        f"A list came again while the first one was under way, for {UNDER_WAY} s: {response}. Expected: 200, or 503 "
        "with Retry-After.",
        because=AGAIN,
        section=UNSEEN,
    )
    if response.status == 503:
        partly = await shop.count("books") - before
        expect(
            partly in (0, len(listed)),  # all: the first one was sent again by the service itself
            f"A list that came again while the first one was under way: {response}. {plural(partly, 'line')} of "
            f"{len(listed)} stored. Expected: none.",
            because=HALF,
            section=SENDS,
        )
        response = await another.post("/books/import", json=listed)
    stored = await shop.count("books") - before
    expect(
        response.status == 200 and stored == len(listed),
        f"A list came again while the first one was under way, for {UNDER_WAY} s. Then the first one's connection was "
        f"cut. {second.task.result()}. {plural(stored, 'line')} of {len(listed)} stored in the end. Expected: all.",
        because="The line is refused because of a list that was never stored. The publisher reads that the shop has "
        "the book.",
        section=UNSEEN,
    )


def first_of(missing, listed):
    """Which line is the first one that is missing, and what it says."""
    return f" (the first: line {missing[0]}, {listed[missing[0] - 1]})" if missing else ""


def shortened(counts):
    """`0, 100, 200, …, 502`."""
    return ", ".join(map(str, counts if len(counts) < 8 else [*counts[:3], "…", *counts[-2:]]))
