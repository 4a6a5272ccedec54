"""What a client reads while the database has no time, or is not there: 503, and when to come back."""

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as NoConnectionFree

PASSING = {
    "53300",  # too many connections
    "55P03",  # lock not available
    "57014",  # cancelled by statement_timeout
    "57P01",  # terminated by an administrator
    "57P03",  # the server is starting up
}


def answer_busy(app: FastAPI) -> None:
    app.add_exception_handler(NoConnectionFree, busy)
    app.add_exception_handler(OSError, busy)  # asyncpg: refused, reset, and every time limit of the driver
    app.add_exception_handler(DBAPIError, busy_or_broken)


async def busy(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": "try again in a moment"}, 503, headers={"Retry-After": "2"})


async def busy_or_broken(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, DBAPIError)
    if error.connection_invalidated or getattr(error.orig, "sqlstate", None) in PASSING:
        return await busy(request, error)
    raise error
