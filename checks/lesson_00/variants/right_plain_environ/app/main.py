from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.responses import JSONResponse

from app.database import engine, ping


@asynccontextmanager
async def lifespan(app):
    yield
    await engine.dispose()


app = FastAPI(lifespan=lifespan)


@app.get("/health")
async def health():
    try:
        await ping()
    except Exception:
        return JSONResponse({"status": "down"}, 503)
    return {"status": "ok"}
