from collections.abc import Iterator

import httpx
import pytest
from provider import Provider
from rows import Rows


@pytest.fixture(autouse=True)
def usual_responses(provider: Provider) -> Iterator[None]:
    yield
    provider.status = 201


def basket(book: int) -> dict[str, object]:
    return {"lines": [{"book_id": book, "quantity": 2}], "card_token": "tok_1"}


async def test_an_accepted_payment_pays_the_order(shop: httpx.AsyncClient, rows: Rows) -> None:
    book, ann = await rows.book(), await rows.customer()
    response = await shop.post("/checkout", json=basket(book), headers=ann.headers)
    assert (response.status_code, response.json()["status"]) == (201, "paid")
    assert await rows.one("SELECT status::text FROM orders WHERE id = $1", response.json()["id"]) == "paid"
    assert (await rows.stock(book), await rows.mails(ann)) == (3, 1)


async def test_a_refused_payment_gives_the_books_back(shop: httpx.AsyncClient, rows: Rows, provider: Provider) -> None:
    book, ann = await rows.book(), await rows.customer()
    provider.status = 402
    response = await shop.post("/checkout", json=basket(book), headers=ann.headers)
    assert (response.status_code, response.json()["status"]) == (402, "cancelled")
    assert (await rows.stock(book), await rows.mails(ann)) == (5, 0)


async def test_an_unknown_outcome_is_tried_again_with_the_same_key(
    shop: httpx.AsyncClient, rows: Rows, provider: Provider
) -> None:
    book, ann = await rows.book(), await rows.customer()
    provider.status, asked = 500, len(provider.keys)
    response = await shop.post("/checkout", json=basket(book), headers=ann.headers)
    assert (response.status_code, response.json()["status"]) == (202, "pending")
    provider.status = 201
    again = await shop.post(f"/checkout/{response.json()['id']}", headers=ann.headers)
    assert (again.status_code, again.json()["status"]) == (200, "paid")
    first, second = provider.keys[asked:]
    assert first == second
