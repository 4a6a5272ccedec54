"""Lesson 11: what the API promises. Here: its OpenAPI document."""

from checks.kit.report import expect
from checks.lesson_11.described import Document
from checks.lesson_11.generated import Broken, generated
from checks.lesson_11.members import stocked
from checks.lesson_11.refused import refused_everywhere, refused_here
from checks.lesson_11.shape import PROBLEM

DOCUMENT = "The document against the responses"
LIES = "The app team generates its client from this document. A response that is not in it raises an exception there."
ANNOUNCED = "What worked yesterday fails or has changed, and nobody has announced it."


async def test_the_document_describes_the_responses(app, endpoints, login, provider, shop, testbed):
    """`GET /openapi.json` is a valid OpenAPI document, and describes each response: status, media type and body."""
    ids = await stocked(shop)
    header = login(ids.customers[0])
    response = await app.get("/openapi.json")
    expect(
        response.status == 200 and isinstance(response.json, dict),
        f"{response}. Expected: 200, and an object.",
        because=LIES,
        section=DOCUMENT,
    )
    document = Document(response.json)
    everywhere = endpoints(ids, headers=header)
    missing = [str(one) for one in everywhere if document.operation(one.method, one.path) is None]
    expect(not missing, f"The document does not have {', '.join(missing)}.", because=LIES, section=DOCUMENT)
    promises = document.false_promises()
    expect(
        not promises,
        f"Errors are problems. The document says something else {len(promises)} times: {'; '.join(promises[:1])}.",
        because="The client is generated with an error class that no response fits.",
        section=DOCUMENT,
    )
    parameters = document.parameters("GET", "/books")
    expect(
        {"limit", "cursor"} <= parameters,
        f"The parameters of GET /books in the document: {', '.join(sorted(parameters)) or 'none'}. Expected: limit "
        "and cursor.",
        because="The generated client cannot ask for the second page.",
        section=DOCUMENT,
    )
    account = {"email": "member@example.com", "password": "correct horse battery"}
    await app.post("/auth/register", json={**account, "name": "A Member"})
    tokens = await app.post("/auth/login", json=account)
    for one in endpoints(ids, headers=header, refresh_token=tokens["refresh_token"], **account):
        worked = await app.request(one.method, one.path, **one.options)
        expect(
            worked.ok,
            f"{one.name}: {worked}. Expected: success, as before.",
            because=ANNOUNCED,
            section=DOCUMENT,
        )
        expect(
            not worked.headers.get("content-type", "").startswith(PROBLEM),
            f"{one.name}: {worked.request} → {worked.status}, with the media type {PROBLEM}.",
            because="A client takes the response for an error, because of its media type.",
            section=DOCUMENT,
        )
        expect_described(document, one.method, one.path, worked, one.name)
    await expect_good_requests_to_work(app, ids, shop, header)
    known = set()
    for what, method, path, options, statuses in (*refused_everywhere(everywhere), *refused_here(ids, header)):
        operation = document.operation(method, path)
        kind = (id(operation), statuses if len(statuses) == 1 else what)
        if operation is not None and kind not in known:  # one of each status is enough here
            known.add(kind)
            expect_described(document, method, path, await app.request(method, path, **options), what)
    for status in (500, 402):  # nobody knows whether it was paid; it was refused
        provider.respond_next(status=status)
        basket = {"lines": [{"book_id": ids.books[1], "quantity": 1}], "card_token": "tok_visa"}
        unpaid = await app.post("/checkout", json=basket, headers=header)
        expect_described(document, "POST", "/checkout", unpaid, f"The provider returned {status}. POST /checkout")
        if status == 500 and unpaid.ok:
            again = f"/checkout/{unpaid['id']}"
            provider.respond_next(status=402)
            refused = await app.post(again, headers=header)
            expect_described(document, "POST", again, refused, "The provider refused it at the second attempt")
    try:
        requests = await generated(response.json, ids, header)
    except Broken as error:
        expect(False, f"The document is not valid: {error}", because=LIES, section=DOCUMENT)
    testbed.note(f"Schemathesis made {len(requests)} requests out of the document")
    for request in requests:
        came = await request.send(app)
        objection = request.objection(came)
        expect(
            not objection,
            f"Schemathesis sent {request.method} {request.path}: {came}. {objection}",
            because=LIES,
            section=DOCUMENT,
        )


async def expect_good_requests_to_work(app, ids, shop, header):
    """New books have what was sent, a list of them keeps its order, and a school may order 5,000 copies."""
    new = {
        "title": "It's New",
        "subtitle": "A Novel",
        "author_id": ids.authors[0],
        "price_cents": 1,
        "discount_percent": 5,
        "published_on": "2020-02-29",
        "stock": 10_000,
    }
    books = [new | {"isbn": f"97833{n:08}"} for n in (3, 1, 2, 0)]
    one, several = await app.post("/books", json=books[0]), await app.post("/books/bulk", json=books[1:])
    made = [one.json, *several.json] if one.ok and several.ok else []
    found = [{name: book.get(name) for name in books[0]} for book in made]
    expect(
        found == books,
        f"POST /books and POST /books/bulk were sent {books}. {one}; {several}",
        because=ANNOUNCED,
        section=DOCUMENT,
    )
    await shop.execute("UPDATE customers SET credit_cents = 1000000 WHERE id = $1", ids.customers[0])
    order = {"lines": [{"book_id": made[0]["id"], "quantity": 5000}]}
    much = await app.post("/orders", json=order, headers=header)
    expect(much.ok, f"An order of 5,000 of 10,000 copies: {much}", because=ANNOUNCED, section=DOCUMENT)


def expect_described(document, method, path, response, what):
    objection = document.objection(method, path, response)
    expect(not objection, f"{what}: {response}. {objection}", because=LIES, section=DOCUMENT)
