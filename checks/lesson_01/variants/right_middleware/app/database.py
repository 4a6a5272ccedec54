"""One engine for the service, one session for each unit of work."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, Request
from fastapi.responses import JSONResponse
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine


@asynccontextmanager
async def open_engine(url: str) -> AsyncIterator[AsyncEngine]:
    """An engine for the time of the block; on the way out every connection is closed properly."""
    engine = create_async_engine(url)
    try:
        yield engine
    finally:
        await engine.dispose()


async def ping(engine: AsyncEngine) -> None:
    """One round trip to the database; raises what the driver raises."""
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))


async def get_sessions(request: Request) -> async_sessionmaker[AsyncSession]:
    sessions: async_sessionmaker[AsyncSession] = request.state.sessions
    return sessions


Sessions = Annotated[async_sessionmaker[AsyncSession], Depends(get_sessions)]


class UnitOfWork:
    """Opens a session for each request and commits it when the answer starts, if that is a success."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        async with scope["state"]["sessions"]() as session:
            scope["state"]["session"] = session
            refused = False

            async def send_after_commit(message):
                nonlocal refused
                if message["type"] == "http.response.start":
                    if message["status"] < 400:
                        try:
                            await session.commit()
                        except IntegrityError:
                            refused = True
                            await JSONResponse({"detail": "refused"}, 409)(scope, receive, send)
                            return
                    else:
                        await session.rollback()
                if not refused:
                    await send(message)

            await self.app(scope, receive, send_after_commit)


async def get_session(request: Request) -> AsyncSession:
    return request.state.session


Session = Annotated[AsyncSession, Depends(get_session)]
