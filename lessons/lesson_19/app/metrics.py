"""Metrics in the format of Prometheus. Each combination of labels is a series that Prometheus keeps for weeks.

So a label never has a value that a client chooses.
"""

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Gauge, Histogram, generate_latest
from sqlalchemy.ext.asyncio import AsyncEngine

router = APIRouter(prefix="/metrics")

METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}

REQUESTS = Counter("http_requests", "Requests that have ended.", ["host", "method", "route", "status"])
DURATION = Histogram("http_request_duration_seconds", "Time until a request has ended.", ["method", "route"])
IN_USE = Gauge("db_pool_connections_in_use", "Connections that the pool has lent out.")
LIMIT = Gauge("db_pool_connections_limit", "Connections that the pool may have.")


def watch_pool(engine: AsyncEngine, pool_size: int) -> None:
    IN_USE.set_function(engine.pool.checkedout)  # type: ignore[attr-defined]
    LIMIT.set(pool_size)


def count_request(host: str, method: str, route: str | None, status: int, seconds: float) -> None:
    """`host` tells the shops apart. `route` is the template of the path, None if there is no such path."""
    method = method if method in METHODS else "other"
    REQUESTS.labels(host, method, route or "unknown", status).inc()
    DURATION.labels(method, route or "unknown").observe(seconds)


@router.get("", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def show_metrics() -> Response:
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
