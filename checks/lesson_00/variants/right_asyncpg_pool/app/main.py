from contextlib import asynccontextmanager

import asyncpg
from fastapi import FastAPI, HTTPException

from app.settings import load_settings

settings = load_settings()


@asynccontextmanager
async def lifespan(app):
    url = str(settings.database_url).replace("+asyncpg", "")
    async with asyncpg.create_pool(url, min_size=1, max_size=5) as pool:
        yield {"pool": pool}


app = FastAPI(lifespan=lifespan)

from fastapi import Request


@app.get("/health")
async def health(request: Request):
    try:
        await request.state.pool.fetchval("SELECT 1")
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        raise HTTPException(503, "database unreachable")
    return {"status": "ok"}
