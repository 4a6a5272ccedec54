"""Metrics in the format of Prometheus."""

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Gauge, Histogram, generate_latest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

router = APIRouter(prefix="/metrics")

REQUESTS = Counter("http_requests", "Requests that have ended.", ["method", "route", "status"])
DURATION = Histogram("http_request_duration_seconds", "Time until a request has ended.", ["method", "route"])
IN_USE = Gauge("db_pool_connections_in_use", "Connections that the pool has lent out.")
LIMIT = Gauge("db_pool_connections_limit", "Connections that the pool may have.")


def watch_pool(engine: AsyncEngine, pool_size: int) -> None:
    event.listen(engine.sync_engine, "checkin", lambda *_: IN_USE.set(engine.pool.checkedout()))  # type: ignore
    LIMIT.set(pool_size)


def count_request(method: str, route: str, status: int, seconds: float) -> None:
    REQUESTS.labels(method, route, status).inc()
    DURATION.labels(method, route).observe(seconds)


@router.get("", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def show_metrics() -> Response:
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
