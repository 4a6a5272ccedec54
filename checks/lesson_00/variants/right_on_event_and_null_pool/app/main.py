from fastapi import FastAPI, HTTPException
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from app.settings import load_settings

app = FastAPI()
engine = create_async_engine(str(load_settings().database_url), poolclass=NullPool)


@app.on_event("shutdown")
async def shutdown():
    await engine.dispose()


@app.get("/health")
async def health():
    try:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT now()"))
    except Exception as error:
        raise HTTPException(503) from error
    return {"status": "ok"}
