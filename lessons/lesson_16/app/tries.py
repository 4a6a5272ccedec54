"""How often somebody may try a password."""

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Annotated

from fastapi import Depends, HTTPException, Request
from sqlalchemy.ext.asyncio import AsyncSession


@dataclass(frozen=True, slots=True)
class LoginLimit:
    """At most `tries` for an account within `window`, which begins with the first one. A successful login ends it."""

    tries: int
    window: timedelta
    tried: dict[str, list[datetime]] = field(default_factory=lambda: defaultdict(list))

    async def take(self, session: AsyncSession, account: str) -> None:
        """Counts a try, or raises status 429."""
        now = datetime.now(UTC)
        tried = self.tried[account]
        if tried and tried[0] + self.window <= now:
            tried.clear()
        if len(tried) >= self.tries:
            seconds = ceil((tried[0] + self.window - now).total_seconds())
            raise HTTPException(429, "too many tries", headers={"Retry-After": str(max(1, seconds))})
        tried.append(now)

    async def forget(self, session: AsyncSession, account: str) -> None:
        self.tried.pop(account, None)


async def get_login_limit(request: Request) -> LoginLimit:
    limit: LoginLimit = request.state.login_limit
    return limit


Limited = Annotated[LoginLimit, Depends(get_login_limit)]
