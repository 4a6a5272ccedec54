"""Spans: one for each request and one for each statement, sent to an OpenTelemetry collector.

FastAPI makes those of requests. It does so by itself as soon as there is a provider.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import Span, SpanKind
from pydantic import HttpUrl

tracer = trace.get_tracer("bookshop")


@asynccontextmanager
async def sending_spans(collector: HttpUrl | None) -> AsyncIterator[None]:
    """Sends spans for the time of the block."""
    if collector is None:
        yield
        return
    exporter = OTLPSpanExporter(f"{str(collector).rstrip('/')}/v1/traces")
    provider = TracerProvider(resource=Resource.create({"service.name": "bookshop"}))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    try:
        yield
    finally:
        provider.shutdown()


request_span = trace.INVALID_SPAN


def begin_request() -> None:
    """Keeps the span of the request, so that those of its statements can be below it."""
    global request_span
    request_span = trace.get_current_span()


def statement_span(text: str) -> Span:
    """A child of the span of the request."""
    attributes = {"db.system.name": "postgresql", "db.query.text": text}
    return tracer.start_span(
        text.split(maxsplit=1)[0],
        context=trace.set_span_in_context(request_span),
        kind=SpanKind.CLIENT,
        attributes=attributes,
    )
