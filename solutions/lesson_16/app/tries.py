"""How often somebody may try a password."""

from dataclasses import dataclass
from datetime import timedelta
from math import ceil
from typing import Annotated

from fastapi import Depends, HTTPException, Request
from sqlalchemy import case, delete, func
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.models import LoginTries


@dataclass(frozen=True, slots=True)
class LoginLimit:
    """At most `tries` for an account within `window`, which begins with the first one. A successful login ends it."""

    tries: int
    window: timedelta

    async def take(self, session: AsyncSession, account: str) -> None:
        """Counts a try, or raises status 429. It does so before the password is checked: many tries may come at once.

        The tries of an account that does not exist are counted like any others.
        """
        added = insert(LoginTries).values(account=account, tries=1, ends_at=func.now() + self.window)
        is_over = LoginTries.ends_at <= func.now()
        tried = added.on_conflict_do_update(
            index_elements=[LoginTries.shop_id, LoginTries.account],
            set_={
                "tries": case((is_over, 1), else_=LoginTries.tries + 1),
                "ends_at": case((is_over, added.excluded.ends_at), else_=LoginTries.ends_at),
            },
        ).returning(LoginTries.tries, func.extract("epoch", LoginTries.ends_at - func.now()))
        async with session.begin():
            tries, seconds = (await session.execute(tried)).one()
        if tries > self.tries:
            raise HTTPException(429, "too many tries", headers={"Retry-After": str(max(1, ceil(seconds)))})

    async def forget(self, session: AsyncSession, account: str) -> None:
        await session.execute(delete(LoginTries).where(LoginTries.account == account))


async def get_login_limit(request: Request) -> LoginLimit:
    limit: LoginLimit = request.state.login_limit
    return limit


Limited = Annotated[LoginLimit, Depends(get_login_limit)]
