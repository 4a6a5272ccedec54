"""What the service says about each request: its id, one line in the log, and its metrics."""

import logging
from time import perf_counter
from uuid import uuid4

from fastapi import Request, Response
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint

from app.costs import Cost, current
from app.logs import request_id
from app.metrics import count_request
from app.tracing import begin_request

log = logging.getLogger(__name__)
HEADER = "X-Request-ID"


class Observe(BaseHTTPMiddleware):
    """Added last, so it is around the other middleware."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        name = request.headers.get(HEADER) or str(uuid4())
        cost = Cost()
        request_id.set(name)
        current.set(cost)
        begin_request()
        started = perf_counter()
        response = await call_next(request)
        response.headers[HEADER] = name
        report(request, name, response.status_code, perf_counter() - started, cost)
        return response


def report(request: Request, name: str, status: int, seconds: float, cost: Cost) -> None:
    route = request.scope["route"].path if "route" in request.scope else None
    fields = {
        "request_id": name,
        "method": request.method,
        "route": route,
        "status": status,
        "duration_ms": round(seconds * 1000, 3),
        "statements": cost.statements,
        "database_ms": round(cost.database * 1000, 3),
        "pool_wait_ms": round(cost.pool_wait * 1000, 3),
    }
    log.info("request", extra={"fields": fields})
    count_request(request.method, request.url.path, status, seconds)
