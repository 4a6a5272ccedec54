"""What the service says about each request: its id, one line in the log, and its metrics."""

import logging
from time import perf_counter
from uuid import UUID, uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.costs import Cost, current
from app.logs import request_id
from app.metrics import count_request
from app.tracing import hide_query

log = logging.getLogger(__name__)
HEADER = "X-Request-ID"


class Observe:
    """The outermost middleware. An error of the app passes through it, and becomes a response further out."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        name = accepted(Headers(scope=scope).get(HEADER))
        cost = Cost()
        # Not reset at the end: the server logs an error after this, in the context of this request.
        request_id.set(name)
        current.set(cost)
        status = 500
        started = perf_counter()

        async def identified(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[HEADER] = name
            await send(message)

        hide_query()
        try:
            await self.app(scope, receive, identified)
        finally:  # the response is complete, a streamed one too
            report(scope, status, perf_counter() - started, cost)


def accepted(name: str | None) -> str:
    """The client's id if it is a UUID as text. Anything else could be long, or mislead a person who reads the log."""
    try:
        if name is not None and str(UUID(name)) == name:
            return name
    except ValueError:
        pass
    return str(uuid4())


def report(scope: Scope, status: int, seconds: float, cost: Cost) -> None:
    method = scope["method"]
    route = scope["route"].path if "route" in scope else None
    fields = {
        "method": method,
        "route": route,
        "status": status,
        "duration_ms": round(seconds * 1000, 3),
        "statements": cost.statements,
        "database_ms": round(cost.database * 1000, 3),
        "pool_wait_ms": round(cost.pool_wait * 1000, 3),
    }
    log.info("request", extra={"fields": fields})
    count_request(method, route, status, seconds)
