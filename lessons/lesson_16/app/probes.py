"""What Kubernetes asks."""

from fastapi import APIRouter, HTTPException, Request
from sqlalchemy.exc import SQLAlchemyError

from app.busy import RETRY_AFTER, Unavailable
from app.database import ping

router = APIRouter()


@router.get("/ready")
async def ready(request: Request) -> dict[str, str]:
    try:
        await ping(request.state.engine)
    except (Unavailable, SQLAlchemyError):
        return {"status": "down"}
    return {"status": "ok"}


@router.get("/health")
@router.get("/live")
async def live(request: Request) -> dict[str, str]:
    try:
        await ping(request.state.engine)
    except (Unavailable, SQLAlchemyError) as error:
        raise HTTPException(503, "database unreachable", headers=RETRY_AFTER) from error
    return {"status": "ok"}
