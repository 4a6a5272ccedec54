from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypedDict

from fastapi import FastAPI, HTTPException, Request
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from app.database import open_engine, ping
from app.settings import load_settings

settings = load_settings()


class State(TypedDict):
    engine: AsyncEngine


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[State]:
    async with open_engine(str(settings.database_url)) as engine:
        yield {"engine": engine}


app = FastAPI(title="Bookshop", lifespan=lifespan)


@app.get("/health")
async def health(request: Request) -> dict[str, str]:
    try:
        await ping(request.state.engine)
    except (SQLAlchemyError, OSError) as error:  # asyncpg reports a refused connection as OSError
        return {"status": "down"}
    return {"status": "ok"}
