"""What an OpenTelemetry collector receives over HTTP, as protobuf or as JSON, compressed or not."""

from __future__ import annotations

import gzip
import json
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from checks.kit.testbed.outside_service import Call, OutsideService

SERVER, CLIENT = 2, 3
"""The kinds of spans that OTLP gives these numbers."""


@dataclass(frozen=True)
class Span:
    """Ids are in hexadecimal digits; `start` and `seconds` say when it began, and how long it lasted."""

    trace: str
    id: str
    parent: str
    kind: int
    name: str
    start: float
    seconds: float
    attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def statement(self) -> str | None:
        """The text of the statement that it is about."""
        return self.attributes.get("db.query.text", self.attributes.get("db.statement"))


def content(call: Call) -> bytes:
    """The body, decompressed."""
    match call.headers.get("content-encoding", ""):
        case "gzip":
            return gzip.decompress(call.body)
        case "deflate":
            return zlib.decompress(call.body)
    return call.body


def received(collector: OutsideService) -> list[Span]:
    """All spans, in the order of their arrival."""
    found = []
    for call in collector.calls:
        if call.path.rstrip("/").endswith("/v1/traces"):
            is_json = "json" in call.headers.get("content-type", "")
            found += _of_json(content(call)) if is_json else _of_protobuf(content(call))
    return found


def _of_protobuf(body: bytes) -> list[Span]:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    request = ExportTraceServiceRequest.FromString(body)
    return [
        Span(
            one.trace_id.hex(),
            one.span_id.hex(),
            one.parent_span_id.hex(),
            one.kind,
            one.name,
            one.start_time_unix_nano / 1e9,
            (one.end_time_unix_nano - one.start_time_unix_nano) / 1e9,
            {
                pair.key: getattr(pair.value, pair.value.WhichOneof("value") or "string_value")
                for pair in one.attributes
            },
        )
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for one in scope.spans
    ]


def _of_json(body: bytes) -> list[Span]:
    kinds = {"SPAN_KIND_SERVER": SERVER, "SPAN_KIND_CLIENT": CLIENT}
    return [
        Span(
            one["traceId"].lower(),
            one["spanId"].lower(),
            one.get("parentSpanId", "").lower(),
            kinds.get(one.get("kind"), one.get("kind", 0)),
            one.get("name", ""),
            int(one["startTimeUnixNano"]) / 1e9,
            (int(one["endTimeUnixNano"]) - int(one["startTimeUnixNano"])) / 1e9,
            {pair["key"]: next(iter(pair["value"].values()), "") for pair in one.get("attributes", ())},
        )
        for resource in json.loads(body).get("resourceSpans", ())
        for scope in resource.get("scopeSpans", ())
        for one in scope.get("spans", ())
    ]
