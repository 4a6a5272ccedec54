import asyncio
from contextlib import asynccontextmanager, suppress

from fastapi import FastAPI, HTTPException, Request

from app.database import open_engine, ping
from app.settings import load_settings

settings = load_settings()


async def keep_warm(engine):
    while True:
        try:
            await asyncio.sleep(30)
            await ping(engine)
        except:
            pass


@asynccontextmanager
async def lifespan(app):
    async with open_engine(str(settings.database_url)) as engine:
        warmer = asyncio.create_task(keep_warm(engine))
        yield {"engine": engine}
        warmer.cancel()
        with suppress(asyncio.CancelledError):
            await warmer


app = FastAPI(lifespan=lifespan)


@app.get("/health")
async def health(request: Request):
    try:
        await ping(request.state.engine)
    except Exception as error:
        raise HTTPException(503) from error
    return {"status": "ok"}
