"""When the database cannot serve a request now: which errors say so, and the response to the client."""

import logging

import asyncpg
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from sqlalchemy import AsyncAdaptedQueuePool, Connection, Engine, PoolProxiedConnection, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import ResourceClosedError
from sqlalchemy.exc import TimeoutError as NoConnectionFree

log = logging.getLogger(__name__)

RETRY_AFTER = {"Retry-After": "2"}
REPEATABLE = {"GET", "HEAD", "PUT", "DELETE"}
"""Methods whose effect is the same when a client sends the request twice."""

PASSING = {
    "25006",  # a former primary, read-only since a fail-over
    "25P03",  # idle for too long inside a transaction
    "40001",  # serialization failure: the transaction was rolled back
    "40P01",  # deadlock: the transaction was rolled back
    "53300",  # too many connections
    "55P03",  # lock not available
    "57014",  # canceled by statement_timeout
    "57P01",  # terminated by an administrator
    "57P02",  # terminated, because another process of the server crashed
    "57P03",  # the server is starting up
}

CANNOT_CONNECT = (
    NoConnectionFree,
    OSError,
    ResourceClosedError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
)


class Unavailable(Exception):
    """The database cannot serve this request now. The cause is the error of the pool or of the driver.

    `commit_sent`: no response to a COMMIT arrived, so nobody knows whether the changes are stored.
    """

    def __init__(self, commit_sent: bool = False) -> None:
        super().__init__("the database cannot serve this request now")
        self.commit_sent = commit_sent


class Pool(AsyncAdaptedQueuePool):
    """Raises Unavailable when it has no connection to give.

    asyncpg reports a refused connection, a reset and its own time limits as OSError, and one that is cut during the
    login as InterfaceError. SQLAlchemy sends statements of its own on an engine's first connection, and raises
    ResourceClosedError if the server is silent then. Here such an error comes from the database; a handler for the
    whole app would catch the OSError of a missing file, too.
    """

    def connect(self) -> PoolProxiedConnection:
        try:
            return super().connect()
        except CANNOT_CONNECT as error:
            raise Unavailable from error


def translate_errors(engine: Engine) -> None:
    """Makes the engine raise Unavailable for the errors of a statement that do not last."""
    event.listen(engine, "handle_error", translate)
    event.listen(engine, "begin", note_begin)
    event.listen(engine, "commit", note_commit)


def note_begin(connection: Connection) -> None:
    connection.info["commit_sent"] = False


def note_commit(connection: Connection) -> None:
    connection.info["commit_sent"] = True


def translate(context: ExceptionContext) -> None:
    error = context.original_exception
    if context.is_pre_ping or not isinstance(error, Exception):  # a failed ping reconnects; a cancel is not an error
        return
    if isinstance(error, OSError):
        context.is_disconnect = True  # the server was silent: nobody knows what this connection still has to say
    if context.is_disconnect or getattr(error, "sqlstate", None) in PASSING:
        connection = context.connection
        raise Unavailable(commit_sent=connection is not None and connection.info.get("commit_sent", False))


def answer_busy(app: FastAPI) -> None:
    app.add_exception_handler(Unavailable, busy)


async def busy(request: Request, error: Exception) -> JSONResponse:
    """503. It invites a client to repeat the request, unless that could store the same thing twice."""
    assert isinstance(error, Unavailable)
    log.warning("no database for %s %s: %r", request.method, request.url.path, error.__cause__)
    if error.commit_sent and request.method not in REPEATABLE:
        return JSONResponse({"detail": "nobody knows whether this was stored; look before you try again"}, 503)
    return JSONResponse({"detail": "try again in a moment"}, 503, headers=RETRY_AFTER)
