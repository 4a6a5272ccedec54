"""A client that repeats a request with the same Idempotency-Key gets the response of the first one."""

from typing import Annotated, Any

from fastapi import Header
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.models import IdempotencyKey

Key = Annotated[str | None, Header(alias="Idempotency-Key", min_length=1, max_length=255)]


async def find_response(session: AsyncSession, key: str) -> dict[str, Any] | None:
    """The response to an earlier request with this key."""
    async with session.begin():
        return await session.scalar(select(IdempotencyKey.response).where(IdempotencyKey.key == key))


async def remember(session: AsyncSession, customer_id: int, key: str, response: dict[str, Any]) -> None:
    async with session.begin():
        session.add(IdempotencyKey(customer_id=customer_id, key=key, response=response))
