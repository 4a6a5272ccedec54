"""What Kubernetes asks. If `/live` fails it restarts the process; while `/ready` fails it sends no requests."""

from fastapi import APIRouter, HTTPException, Request
from sqlalchemy.exc import SQLAlchemyError

from app.busy import RETRY_AFTER, Unavailable
from app.database import ping

router = APIRouter()


@router.get("/live")
async def live() -> dict[str, str]:
    """The process serves requests. It asks nobody: a restart would not help a database that is slow."""
    return {"status": "ok"}


@router.get("/health")
@router.get("/ready")
async def ready(request: Request) -> dict[str, str]:
    """The database can be reached, too. The engine has a limit for each of its waits."""
    try:
        await ping(request.state.engine)
    except (Unavailable, SQLAlchemyError) as error:
        raise HTTPException(503, "database unreachable", headers=RETRY_AFTER) from error
    return {"status": "ok"}
