"""Which shop a request or a job is about, and how PostgreSQL learns of it.

All shops share the tables. Policies let a transaction see the rows of one shop: that of the setting `app.shop_id`.
"""

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.security.utils import get_authorization_scheme_param
from sqlalchemy import Connection, event, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, SessionTransaction

from app.refusals import NotFound
from app.tokens import InvalidToken, read_access_token

# The last argument, is_local, makes the setting end with the transaction, however that ends. So a connection goes back
# to the pool without it. A host that no shop has makes it an empty text.
ENTER = text("SELECT set_config('app.shop_id', :shop_id, true)")
ENTER_AT_HOST = text("SELECT set_config('app.shop_id', (SELECT id::text FROM shops WHERE host = :host), true)")


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


def sessions_of(engine: AsyncEngine, tenant: Tenant, **options: Any) -> async_sessionmaker[AsyncSession]:
    """Makes sessions that see one shop, in each of their transactions. The options are those of a session."""
    return async_sessionmaker(engine, info={"tenant": tenant}, **options)


@event.listens_for(Session, "after_begin")
def enter(session: Session, transaction: SessionTransaction, connection: Connection) -> None:
    tenant: Tenant | None = session.info.get("tenant")
    if tenant is None or transaction.nested:  # a savepoint is in a transaction that has entered the shop
        return
    if tenant.shop_id is not None:
        connection.execute(ENTER, {"shop_id": str(tenant.shop_id)})
    elif not connection.scalar(ENTER_AT_HOST, {"host": tenant.host}):
        raise NotFound("there is no shop here")
