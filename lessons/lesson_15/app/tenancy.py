"""Which shop a request or a job is about, and how PostgreSQL learns of it.

All shops share the tables. Policies let a connection see the rows of one shop: that of the setting `app.shop_id`.
"""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security.utils import get_authorization_scheme_param
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.tokens import InvalidToken, read_access_token

SHOP_AT = text("SELECT id FROM shops WHERE host = :host")
ENTER = text("SELECT set_config('app.shop_id', :shop_id, false)")


@dataclass(frozen=True, slots=True)
class Tenant:
    """A shop by its id, where we know it for sure, or the one that visitors find at a host name."""

    shop_id: int | None = None
    host: str = ""


async def get_tenant(request: Request) -> Tenant:
    """The shop of the access token. A Host header proves nothing, so it counts only for visitors without a token."""
    scheme, token = get_authorization_scheme_param(request.headers.get("Authorization"))
    if scheme.lower() == "bearer":
        try:
            return Tenant(read_access_token(token, request.state.jwt_secret).shop_id)
        except InvalidToken:  # out of date, perhaps: its owner is about to log in again
            pass
    return Tenant(host=request.headers.get("Host", "").partition(":")[0].lower())


CurrentTenant = Annotated[Tenant, Depends(get_tenant)]


async def enter(session: AsyncSession, tenant: Tenant) -> None:
    """Lets the connection of the session see the shop. A visitor at a host that no shop has is in none."""
    shop_id = tenant.shop_id
    if shop_id is None:
        shop_id = await session.scalar(SHOP_AT, {"host": tenant.host})
    if shop_id is not None:
        await session.execute(ENTER, {"shop_id": str(shop_id)})
