"""Lesson 18: TODO: in one sentence, what the app does once it is right."""

from checks.kit.report import expect

COUNT = "A shop that shows only some of its books does not sell the others."


async def test_the_number_of_books_is_complete(app, shop):
    """`GET /example` returns the number of books in the shop, however many there are."""
    await shop.seed(books=12)
    stored = await shop.count("books")  # the shop has books of others, too
    response = await app.get("/example")
    expect(response.status == 200, f"{response}", because=COUNT, section="See it break")
    expect(
        response["books"] == stored,
        f"The shop has {stored} books. `GET /example` returned {response['books']}.",
        because=COUNT,
        section="See it break",
    )
