"""Reports read much. So that they do not take connections from customers, they have an engine of their own."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from app.tenancy import CurrentTenant, sessions_of


def open_reporting(url: str) -> AsyncEngine:
    """No prepared statements, because of PgBouncer."""
    return create_async_engine(url, pool_size=5, hide_parameters=True, connect_args={"statement_cache_size": 0})


async def get_session(request: Request, tenant: CurrentTenant) -> AsyncIterator[AsyncSession]:
    async with sessions_of(request.state.reporting, tenant)() as session:
        yield session


ReportSession = Annotated[AsyncSession, Depends(get_session)]
