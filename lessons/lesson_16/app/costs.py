"""What a request costs in the database: how many statements, how long they take, how long it waits for a connection."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from sqlalchemy import Connection, Engine, event

from app.tracing import statement_span, tracer

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Cost:
    """Times are in seconds."""

    statements: int = 0
    database: float = 0
    pool_wait: float = 0


current: ContextVar[Cost | None] = ContextVar("cost", default=None)
"""The cost of the current request."""


@contextmanager
def waiting_for_pool() -> Iterator[None]:
    """Counts the time of the block as waiting for a connection."""
    started = perf_counter()
    with tracer.start_as_current_span("pool", record_exception=False):
        yield
    if cost := current.get():
        cost.pool_wait += perf_counter() - started


class Statements:
    """Counts and times the statements of an engine. Those that take `slow` seconds get a line of their own."""

    def __init__(self, engine: Engine, slow: float) -> None:
        self.slow = slow
        event.listen(engine, "before_cursor_execute", self.begin)
        event.listen(engine, "after_cursor_execute", self.end)

    def begin(self, _: Connection, cursor: Any, text: str, parameters: Any, context: Any, many: bool) -> None:
        context.running = (perf_counter(), text, statement_span(text))
        if cost := current.get():
            cost.statements += 1

    def end(self, _: Connection, cursor: Any, text: str, parameters: Any, context: Any, many: bool) -> None:
        started, text, span = context.running
        seconds = perf_counter() - started
        span.end()
        if cost := current.get():
            cost.database += seconds
        if seconds >= self.slow:
            fields = {"statement": text, "duration_ms": round(seconds * 1000, 3)}  # parameters may be secrets
            log.warning("slow_statement", extra={"fields": fields})
