from sqlalchemy import select

from app.models import Book, Customer, Order


async def test_place_an_order(client, book):
    response = await client.post("/orders", json={"lines": [{"book_id": 1, "quantity": 2}]})
    assert response.status_code == 201
    assert response.json() == {"id": 1, "customer_id": 1, "total_cents": 2000, "status": "pending"}


async def test_the_order_is_stored(client, db):
    order = await db.get(Order, 1)
    assert order.customer_id == 1


async def test_read_the_order(client):
    response = await client.get("/orders/1")
    assert response.status_code == 200
    assert response.json()["total_cents"] == 2000


async def test_stock(db):
    book = (await db.scalars(select(Book))).one()
    assert book.stock == 8


async def test_too_many_copies(client):
    response = await client.post("/orders", json={"lines": [{"book_id": 1, "quantity": 100}]})
    assert response.status_code == 409
    assert response.json()["detail"] == "only 8 left of Emma"


async def test_no_such_order(client):
    response = await client.get("/orders/2")
    assert response


async def test_check_out(client):
    response = await client.post("/checkout", json={"lines": [{"book_id": 1, "quantity": 1}], "card_token": "t"})
    assert response.status_code == 201


async def test_a_review(client):
    response = await client.post("/books/1/reviews", json={"customer_id": 1, "rating": 5})
    assert response.status_code == 201


async def test_transfer(client, db):
    db.add(Customer(email="ben@example.com", name="Ben"))
    await db.commit()
    response = await client.post("/transfers", json={"recipient_id": 2, "cents": 100})
    assert response.status_code == 201


async def test_gift(client):
    body = {
        "recipient": {"email": "cleo@example.com", "name": "Cleo"},
        "lines": [{"book_id": 1, "quantity": 1}],
        "message": "For you",
    }
    response = await client.post("/gifts", json=body)
    assert response.status_code == 201


async def test_wishlist(client):
    assert (await client.put("/wishlist/1")).status_code == 200
    assert len((await client.get("/wishlist")).json()) == 1
