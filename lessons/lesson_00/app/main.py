import asyncio

from fastapi import FastAPI, HTTPException

from app.database import keep_warm, ping

app = FastAPI(title="Bookshop")


@app.on_event("startup")
async def startup() -> None:
    app.state.warmer = asyncio.create_task(keep_warm())


@app.on_event("shutdown")
async def shutdown() -> None:
    app.state.warmer.cancel()
    await asyncio.wait([app.state.warmer])


@app.get("/health")
async def health() -> dict[str, str]:
    if not ping():
        raise HTTPException(503, "database unreachable")
    return {"status": "ok"}
