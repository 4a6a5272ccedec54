"""What a request costs in the database: how many statements, how long they take, how long it waits for a connection."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from opentelemetry.trace import Status, StatusCode
from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import ExceptionContext, ExecutionContext

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
    """Counts the time of the block as waiting for a connection, also if the request gets none."""
    started = perf_counter()
    try:
        with tracer.start_as_current_span("pool", record_exception=False):
            yield
    finally:
        if cost := current.get():
            cost.pool_wait += perf_counter() - started


class Statements:
    """Counts and times the statements of an engine. Those that take `slow` seconds get a line of their own."""

    def __init__(self, engine: Engine, slow: float) -> None:
        self.slow = slow
        event.listen(engine, "before_cursor_execute", self.begin)
        event.listen(engine, "after_cursor_execute", self.end)
        event.listen(engine, "handle_error", self.fail)

    def begin(self, _: Connection, cursor: Any, text: str, parameters: Any, context: Any, many: bool) -> None:
        context.running = (perf_counter(), text, statement_span(text))
        if cost := current.get():
            cost.statements += 1

    def end(self, _: Connection, cursor: Any, text: str, parameters: Any, context: Any, many: bool) -> None:
        self.finish(context, Status(StatusCode.UNSET))

    def fail(self, error: ExceptionContext) -> None:
        """A statement that is canceled because it took too long is an error. It is the slowest of all."""
        if error.execution_context is not None:
            self.finish(error.execution_context, Status(StatusCode.ERROR))

    def finish(self, context: ExecutionContext, status: Status) -> None:
        running = context.__dict__.pop("running", None)
        if running is None:  # the statement has ended, and something after it has failed
            return
        started, text, span = running
        seconds = perf_counter() - started
        span.set_status(status)
        span.end()
        if cost := current.get():
            cost.database += seconds
        if seconds >= self.slow:
            fields = {"statement": text, "duration_ms": round(seconds * 1000, 3)}  # parameters may be secrets
            log.warning("slow_statement", extra={"fields": fields})
