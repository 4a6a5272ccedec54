"""Spans: one for each request and one for each statement, sent to an OpenTelemetry collector.

FastAPI makes those of requests. It does so by itself as soon as there is a provider.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind
from pydantic import HttpUrl

tracer = trace.get_tracer("bookshop")


@asynccontextmanager
async def sending_spans(collector: HttpUrl | None) -> AsyncIterator[None]:
    """Sends spans for the time of the block, from a thread: no request waits for the collector, and none fails.

    On the way out it sends what is left. A collector that does not respond gets a second for each batch, and two
    batches hold all that can wait.
    """
    if collector is None:
        yield
        return
    exporter = OTLPSpanExporter(f"{str(collector).rstrip('/')}/v1/traces", timeout=1)
    provider = TracerProvider(resource=Resource.create({"service.name": "bookshop"}))
    provider.add_span_processor(BatchSpanProcessor(exporter, max_export_batch_size=1024))
    trace.set_tracer_provider(provider)
    try:
        yield
    finally:
        await asyncio.to_thread(provider.shutdown)


def hide_query() -> None:
    """FastAPI has put the query into the span of the request. It may hold a secret, such as the token of a link."""
    trace.get_current_span().set_attribute("url.query", "hidden")


def statement_span(text: str) -> Span:
    """A child of the current span, which is that of the request. Without the parameters: they may be secrets."""
    attributes = {"db.system.name": "postgresql", "db.query.text": text}
    return tracer.start_span(text.split(maxsplit=1)[0], kind=SpanKind.CLIENT, attributes=attributes)
