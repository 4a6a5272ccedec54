"""A client that repeats a request with the same Idempotency-Key gets the response of the first one."""

import hashlib
from typing import Annotated

from fastapi import Header, HTTPException
from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.models import IdempotencyKey

Key = Annotated[str | None, Header(alias="Idempotency-Key", min_length=1, max_length=255)]


async def claim(session: AsyncSession, customer_id: int, key: str, body: BaseModel) -> IdempotencyKey:
    """This customer's row for the key. It has a response if a request with the key and the same body was served.

    If another transaction has added the row and is still open, the INSERT waits for its end. So of two requests at once
    one works, and the other one finds its response, or works if the first one failed.
    """
    request_hash = hashlib.sha256(body.model_dump_json().encode()).hexdigest()
    new = insert(IdempotencyKey).values(customer_id=customer_id, key=key, request_hash=request_hash)
    await session.execute(new.on_conflict_do_nothing())
    mine = (IdempotencyKey.customer_id == customer_id, IdempotencyKey.key == key)
    claimed = (await session.scalars(select(IdempotencyKey).where(*mine))).one()
    if claimed.request_hash != request_hash:
        raise HTTPException(422, "this Idempotency-Key was used with another body")
    return claimed
