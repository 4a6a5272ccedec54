"""Lesson 11: what the API promises. Here: books that are deleted."""

from checks.kit.report import expect
from checks.kit.wire import committing
from checks.lesson_11.members import changed, everything, settled, stocked
from checks.lesson_11.refused import SALES
from checks.lesson_11.shape import expect_status

CASCADE = "A cascade deletes more than the book"
EVIDENCE = "Orders and their invoices are kept for ten years by law. The totals of customers and authors change, too."
KEPT = (
    "A book that was added by mistake cannot be removed. Its reviews and wishes are no reason to keep it: their "
    "foreign keys have ON DELETE CASCADE. A session that first sets their `book_id` to NULL violates a constraint."
)
UNTOLD = "The client does not learn that orders hold the book. It tries again, or corrects what was right."
CHANGED = "The ticket has promised 204 to the clients. This one takes the response for a failure."
TWICE = "Two people delete a book. Each one reads that the deletion was theirs, or that the service has failed."
FAILED = "The client does not learn that the book does not exist any more."
GHOST = "Customers find, review and order a book that the shop does not have any more."
OCCUPIED = "The shop cannot add the book again. Its ISBN belongs to a book that nobody can see."


async def test_a_book_in_an_order_stays(apps, login, provider, shop, wire):
    """`DELETE /books/{book_id}` of a book that is in an order returns 409, and changes nothing."""
    ids = await stocked(shop)
    orders = [ids.orders[0], ids.orders[1]]
    for status in ("pending", "paid", "shipped", "cancelled"):
        await shop.execute("UPDATE orders SET status = $2::order_status WHERE id = ANY($1)", orders, status)
        for book in (*ids.books[:2], ids.others.books[0]):
            before = await everything(shop)
            response = await apps[0].delete(f"/books/{book}")
            harm = EVIDENCE if response.ok else UNTOLD
            expect_status(response, (409,), f"DELETE of a book in an order ({status})", harm, CASCADE)
            after = await everything(shop)
            expect(
                after == before,
                f"{response.request} → {response.status} has changed {changed(before, after)}.",
                because=EVIDENCE,
                section=CASCADE,
            )
    buyer, sold = login(ids.customers[1]), {"number": 0}
    starts = {
        "order": lambda path, book: apps[0].start_request(
            "POST", path, json={"lines": [{"book_id": book, "quantity": 1}], **SALES[path]}, headers=buyer
        ),
        "deletion": lambda path, book: apps[1].start_request("DELETE", f"/books/{book}"),
    }
    for path in SALES:
        for first in ("order", "deletion"):  # the first one is about to commit when the second one arrives
            book = await a_book(shop, ids, sold)
            requests = {}
            async with wire.hold(committing, limit=1) as held:
                for name in sorted(("order", "deletion"), key=lambda name: name != first):
                    requests[name] = starts[name](path, book)
                    if name == first:
                        await held.wait_for_or(requests[first].task)
                await settled(shop, [requests[name] for name in requests if name != first])
            await expect_one(shop, apps, requests, book, path, f"the {first} first")
        for step in range(1, 9):  # an order comes between two statements of the deletion
            book = await a_book(shop, ids, sold)
            async with wire.hold(of_one_connection()) as held:
                requests = {"deletion": starts["deletion"](path, book)}
                for _ in range(step - 1):
                    if await held.wait_for_or(requests["deletion"].task):
                        held.release_one()
                between = await held.wait_for_or(requests["deletion"].task)
                if between:
                    requests["order"] = starts["order"](path, book)
                    await settled(shop, [requests["order"]])
            if not between:
                break
            await expect_one(shop, apps, requests, book, path, f"before statement {step} of the deletion")


async def test_a_deleted_book_is_gone(app, login, shop, wire):
    """`DELETE /books/{book_id}` of a book that nobody has ordered returns 204. Its reviews and wishes go with it."""
    ids = await stocked(shop)
    book, reader = ids.books[-1], login(ids.customers[0])
    isbn = await shop.value("SELECT isbn FROM books WHERE id = $1", book)
    reviews = await others_of("reviews", shop, book)
    wishes = await others_of("wishes", shop, book)
    async with wire.hold(committing, limit=1) as held:
        deletion = app.start_request("DELETE", f"/books/{book}")
        await held.wait_for_or(deletion.task)
        late = app.start_request("POST", f"/books/{book}/reviews", json={"customer_id": ids.customers[1], "rating": 3})
        await settled(shop, [late])
    deleted = await deletion
    harm = CHANGED if deleted.ok else KEPT
    expect_status(deleted, (204,), "DELETE of a book that nobody has ordered", harm, CASCADE)
    expect_status(
        await late, (201, 404, 409, 422), "A review that was sent while its book was deleted", FAILED, CASCADE
    )
    expect(not deleted.text, f"A 204 with the body {deleted.text[:60]!r}.", because="204 has no body.", section=CASCADE)
    expect_status(await app.delete(f"/books/{book}"), (404,), "A second DELETE of a book", TWICE, CASCADE)
    for what, request in (
        ("GET", app.get(f"/books/{book}")),
        ("PATCH", app.patch(f"/books/{book}", json={"title": "x"}, headers={"If-Match": "*"})),
        ("A review", app.post(f"/books/{book}/reviews", json={"customer_id": ids.customers[1], "rating": 3})),
        ("A wish", app.put(f"/wishlist/{book}", headers=reader)),
        ("A count of the stock", app.put(f"/books/{book}/stock", json={"stock": 90})),
        ("A quote", app.post("/quotes", json={"lines": [{"book_id": book, "quantity": 1}]})),
        ("An order", app.post("/orders", json={"lines": [{"book_id": book, "quantity": 1}]}, headers=reader)),
    ):
        response = await request
        harm = GHOST if response.ok else FAILED
        expect_status(response, (404,), f"{what} of a book that was deleted", harm, CASCADE)
    lists = {
        "GET /books": [one["id"] for one in (await app.get("/books"))["books"]],
        "GET /catalogue": [one["id"] for one in (await app.get("/catalogue"))["books"]],
        "GET /authors": [one["id"] for author in (await app.get("/authors")).json for one in author["books"]],
        "GET /wishlist": [one["book_id"] for one in (await app.get("/wishlist", headers=reader)).json],
        "GET /export/books.csv": [
            int(line.partition(",")[0])
            for line in (await app.get("/export/books.csv")).text.split()
            if line.partition(",")[0].isdigit()
        ],
    }
    for where, found in lists.items():
        expect(
            book not in found and bool(found),
            f"Book {book} was deleted. {where} shows {found}.",
            because=GHOST if book in found else "Other books are gone, too.",
            section=CASCADE,
        )
    for table, before in (("reviews", reviews), ("wishes", wishes)):
        expect(
            await others_of(table, shop, book) == before,
            f"After DELETE of book {book}, {table} of other books are not as they were.",
            because="What customers wrote about other books is gone.",
            section=CASCADE,
        )
    account = await app.get(f"/customers/{ids.customers[2]}")
    shown = len(account["reviews"])
    kept = await shop.count("reviews", "customer_id = $1 AND book_id <> $2", ids.customers[2], book)
    expect(
        shown == kept,
        f"{account}. It shows {shown} reviews. Expected: {kept}, those of books that were not deleted.",
        because=GHOST if shown > kept else "What customers wrote about other books is gone.",
        section=CASCADE,
    )
    new = {"isbn": isbn, "title": "Once More", "author_id": ids.authors[0], "price_cents": 900}
    again = await app.post("/books", json=new)
    expect_status(again, (201,), "A new book with the ISBN of one that was deleted", OCCUPIED, CASCADE)


async def a_book(shop, ids, sold):
    """A book that nobody has ordered yet, with a review and a wish."""
    sold["number"] += 1
    isbn = f"97844{sold['number']:08}"
    book = await shop.add("books", isbn=isbn, title="New", author_id=ids.authors[0], price_cents=1, stock=5)
    await shop.add("reviews", customer_id=ids.customers[2], book_id=book, rating=3, body="It's fine")
    await shop.add("wishes", customer_id=ids.customers[0], book_id=book)
    return book


def of_one_connection():
    """For `wire.hold`: the statements of the connection that sends the first one."""
    connections = set()

    def statements_of_one_connection(statement):
        if statement.data and not connections:
            connections.add(statement.connection)
        return statement.data and statement.connection in connections

    return statements_of_one_connection


async def expect_one(shop, apps, requests, book, path, when):
    """Either the book is ordered and stays, with all that belongs to it, or it is deleted and not ordered."""
    placed, deleted = await requests["order"], await requests["deletion"]
    there = await shop.count("books", "id = $1", book)
    lines = await shop.count("order_lines", "book_id = $1", book)
    gone = (await apps[0].get(f"/books/{book}")).status == 404
    what = (
        f"A book was sold by POST {path} and deleted at the same moment, {when}: POST {path} → {placed.status}, DELETE "
        f"→ {deleted.status}. Rows of the book: {there}. Its order lines: {lines}."
    )
    sold = placed.status == 201
    right = (1, 1) if sold else (0, 0) if deleted.status == 204 else (1, 0)
    expect(
        (there, lines) == right and gone != bool(there) and not (sold and deleted.status == 204),
        f"{what} Expected: one of the two, such as 201 and 409, or 404 and 204.",
        because=EVIDENCE if lines < sold else "A client was told something that is not what has happened.",
        section=CASCADE,
    )
    expect(
        placed.status in (201, 404, 409, 503) and deleted.status in (204, 409, 503),
        f"{what} Expected: the one that fails returns 409 (a 404 for the order, and 503 if it gave up waiting).",
        because="A client reads that the service has failed, and does not learn that the book is sold, or gone.",
        section=CASCADE,
    )
    parts = [await shop.count(table, "book_id = $1", book) for table in ("reviews", "wishes")]
    expect(
        gone or parts == [1, 1],
        f"{what} The book had a review and a wish. Now it has {parts[0]} and {parts[1]}.",
        because="The deletion was refused, and what customers wrote about the book is gone.",
        section=CASCADE,
    )


async def others_of(table, shop, book):
    return await shop.value(f"SELECT string_agg(t::text, '|' ORDER BY id) FROM {table} t WHERE book_id <> $1", book)
