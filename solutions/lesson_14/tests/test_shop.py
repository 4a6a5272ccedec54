import httpx
import pytest
from fastapi import FastAPI
from rows import Rows


async def test_a_customer_reviews_a_book_once(shop: httpx.AsyncClient, rows: Rows) -> None:
    book, ann = await rows.book(), await rows.customer()
    review = {"customer_id": ann.id, "rating": 4}
    assert (await shop.post(f"/books/{book}/reviews", json=review)).status_code == 201
    assert (await shop.post(f"/books/{book}/reviews", json=review)).status_code == 409
    assert await rows.one("SELECT count(*) FROM reviews WHERE book_id = $1", book) == 1


async def test_a_transfer_needs_credit(shop: httpx.AsyncClient, rows: Rows) -> None:
    ann, ben = await rows.customer(credit=100), await rows.customer(credit=0)
    response = await shop.post("/transfers", json={"recipient_id": ben.id, "cents": 101}, headers=ann.headers)
    assert response.status_code == 409
    assert (await rows.credit(ann), await rows.credit(ben)) == (100, 0)


async def test_the_shop_does_not_start_without_a_secret(
    shop: httpx.AsyncClient, migrated: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from app.main import app

    monkeypatch.setenv("DATABASE_URL", migrated)
    for secret in (None, "short"):
        monkeypatch.delenv("JWT_SECRET", raising=False)
        if secret:
            monkeypatch.setenv("JWT_SECRET", secret)
        assert not await starts(app)


async def starts(app: FastAPI) -> bool:
    try:
        async with app.router.lifespan_context(app):
            return True
    except (Exception, SystemExit):
        return False
