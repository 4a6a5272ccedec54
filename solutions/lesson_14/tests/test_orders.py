import httpx
from rows import Rows


def of(*books: int, quantity: int = 1) -> dict[str, object]:
    return {"lines": [{"book_id": book, "quantity": quantity} for book in books]}


async def test_an_order_is_stored(shop: httpx.AsyncClient, rows: Rows) -> None:
    book, ann = await rows.book(price=1000, stock=5), await rows.customer()
    response = await shop.post("/orders", json=of(book, quantity=2), headers=ann.headers)
    assert response.status_code == 201
    order = response.json()["id"]
    line = await rows.connection.fetchrow("SELECT * FROM order_lines WHERE order_id = $1", order)
    assert line and (line["book_id"], line["quantity"], line["price_cents"]) == (book, 2, 1000)
    assert await rows.one("SELECT customer_id FROM orders WHERE id = $1", order) == ann.id
    assert await rows.stock(book) == 3


async def test_an_order_has_one_mail(shop: httpx.AsyncClient, rows: Rows) -> None:
    book, ann = await rows.book(price=700), await rows.customer()
    order = (await shop.post("/orders", json=of(book), headers=ann.headers)).json()["id"]
    mails = await rows.connection.fetch("SELECT recipient, total_cents FROM outbox WHERE order_id = $1", order)
    assert [tuple(mail) for mail in mails] == [(ann.email, 700)]


async def test_a_refused_order_leaves_nothing(shop: httpx.AsyncClient, rows: Rows) -> None:
    there, sold_out, ann = await rows.book(), await rows.book(stock=0), await rows.customer()
    for lines in (of(there, sold_out), of(sold_out, there)):
        response = await shop.post("/orders", json=lines, headers=ann.headers)
        assert response.status_code == 409
        assert await rows.stock(there) == 5
        assert (await rows.orders(ann), await rows.mails(ann)) == (0, 0)


async def test_an_order_beyond_the_credit_leaves_nothing(shop: httpx.AsyncClient, rows: Rows) -> None:
    """PostgreSQL notices at the COMMIT."""
    book, ann = await rows.book(price=1000), await rows.customer(credit=1500)
    response = await shop.post("/orders", json=of(book, quantity=2), headers=ann.headers)
    assert response.status_code == 409
    assert await rows.stock(book) == 5
    assert (await rows.orders(ann), await rows.mails(ann)) == (0, 0)
    assert (await shop.post("/orders", json=of(book), headers=ann.headers)).status_code == 201


async def test_an_order_keeps_its_price(shop: httpx.AsyncClient, rows: Rows) -> None:
    book, ann = await rows.book(price=1000), await rows.customer()
    order = (await shop.post("/orders", json=of(book), headers=ann.headers)).json()["id"]
    await rows.connection.execute("UPDATE books SET price_cents = 1200 WHERE id = $1", book)
    assert (await shop.get(f"/orders/{order}", headers=ann.headers)).json()["total_cents"] == 1000


async def test_others_do_not_see_an_order(shop: httpx.AsyncClient, rows: Rows) -> None:
    book, ann, ben = await rows.book(), await rows.customer(), await rows.customer()
    order = (await shop.post("/orders", json=of(book), headers=ann.headers)).json()["id"]
    assert (await shop.get(f"/orders/{order}", headers=ann.headers)).status_code == 200
    assert (await shop.get(f"/orders/{order}", headers=ben.headers)).status_code == 404
    assert (await shop.get(f"/orders/{order}")).status_code == 401


async def test_a_repeated_key_is_one_order(shop: httpx.AsyncClient, rows: Rows) -> None:
    book, ann = await rows.book(), await rows.customer()
    headers = {**ann.headers, "Idempotency-Key": "once"}
    first = await shop.post("/orders", json=of(book), headers=headers)
    again = await shop.post("/orders", json=of(book), headers=headers)
    assert first.status_code == again.status_code == 201
    assert first.json() == again.json()
    assert (await rows.orders(ann), await rows.stock(book)) == (1, 4)


async def test_a_gift_belongs_to_its_recipient(shop: httpx.AsyncClient, rows: Rows) -> None:
    book, ann, ben = await rows.book(), await rows.customer(), await rows.customer()
    body = {"recipient": {"email": ben.email, "name": "Ben"}, "message": "For you", **of(book)}
    response = await shop.post("/gifts", json=body, headers=ann.headers)
    assert response.status_code == 201
    gift = await rows.connection.fetchrow("SELECT * FROM gifts WHERE id = $1", response.json()["id"])
    assert gift and (gift["recipient_id"], gift["message"]) == (ben.id, "For you")
    assert (await rows.orders(ann), await rows.mails(ann), await rows.stock(book)) == (1, 1, 4)
