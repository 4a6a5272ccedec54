"""Lesson 08: many customers at once. Here: wish lists."""

from checks.kit.report import expect
from checks.lesson_08.at_once import crowd, in_step
from checks.lesson_08.shopping import statuses

UNIQUE = "Insert first, and let the unique constraint decide"
SEVERAL = "The customer finds the book on the list several times, or reads something else each time."
ERROR = "A customer taps the heart twice and reads an error, though the book is on the list."


async def test_fifty_wishes_make_one_row(apps, shop, wire, login):
    """`PUT /wishlist/{book_id}` at the same moment, any number of times, makes one row, and each request gets it."""
    ids = await shop.seed(books=2, customers=2)
    anna, ben = ids.customers
    book, other = ids.books
    path = f"/wishlist/{book}"
    responses = await in_step(
        wire, shop, *(lambda app=app: app.start_request("PUT", path, headers=login(anna)) for app in apps)
    )
    await expect_one_wish(shop, anna, book, responses, "Two requests in two processes")
    path = f"/wishlist/{other}"
    responses = await crowd(apps, [lambda app: app.put(path, headers=login(ben))] * 50)
    await expect_one_wish(shop, ben, other, responses, "50 requests")
    later = [await apps[0].put(path, headers=login(ben)), await apps[1].put(path, headers=login(anna))]
    await expect_one_wish(shop, ben, other, [responses[0], later[0]], "A request later")
    await expect_one_wish(shop, anna, other, later[1:], "Another customer wished for the same book. The request")
    listed = await apps[0].get("/wishlist", headers=login(anna))
    expect(
        listed.status == 200 and [one["book_id"] for one in listed.json] == [book, other],
        f"{listed}. Expected: the books {book} and {other}.",
        because="Customers find books on their list that others have put on theirs, or miss their own.",
        section=UNIQUE,
    )


async def expect_one_wish(shop, customer, book, responses, what):
    """All responses are the one row of this customer and book."""
    rows = await shop.count("wishes", "customer_id = $1 AND book_id = $2", customer, book)
    different = {one.text for one in responses}
    expect(
        all(one.status == 200 for one in responses) and rows == len(different) == 1,
        f"{what}: {statuses(responses)}, {len(different)} different responses, and rows in the table: "
        f"{rows}. Expected: 200 for each, the same response, and one row.",
        because=SEVERAL if all(one.status == 200 for one in responses) else ERROR,
        section=UNIQUE,
    )
