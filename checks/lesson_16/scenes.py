"""What the notebook of lesson 16 needs besides its subject: an app with a collector, tables, and the picture."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from checks.kit.notebook import RunningApp, run_app
from checks.kit.testbed.outside_service import OutsideService, outside_service
from checks.lesson_16.furnished import Furnished, furnish
from checks.lesson_16.lines import Line, Log
from checks.lesson_16.spans import Span, received

if TYPE_CHECKING:
    from checks.kit.service.app import App

COLORS = {"request": "#c9ced6", "framework": "#8fb0dd", "pool": "#e08a1e", "statement": "#2c5fa8"}


@dataclass(frozen=True)
class Scene:
    """An app that sends its spans to a collector, and a shop with customers."""

    running: RunningApp
    app: App
    log: Log
    collector: OutsideService
    shop: Furnished

    def lines(self, request_id: str) -> list[Line]:
        return self.log.of(request_id)

    def spans(self, trace: str) -> list[Span]:
        """The spans of a trace, once the app has ended."""
        return [span for span in received(self.collector) if span.trace == trace]


@asynccontextmanager
async def observed(target: str = "solutions", **env: str) -> AsyncIterator[Scene]:
    """Runs the app with a collector."""
    async with (
        run_app(16, target) as running,
        outside_service(running.testbed, env="OTEL_EXPORTER_OTLP_ENDPOINT") as collector,
    ):
        shop = await furnish(running.shop, running.testbed.lesson.env["JWT_SECRET"])
        app = await running.testbed.launch(env)
        yield Scene(running, app, Log(app), collector, shop)


def traced() -> tuple[str, dict[str, str]]:
    """The id of a trace, and the header that begins it."""
    trace = uuid4().hex
    return trace, {"traceparent": f"00-{trace}-{uuid4().hex[:16]}-01"}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows below their names, as text."""
    names = list(rows[0])
    texts = [names, *([str(row.get(name, "")) for name in names] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in texts)


def flame_picture(spans: Sequence[Span]) -> Any:
    """The spans of one request: time from left to right, and each span below the one that it is part of."""
    import matplotlib.pyplot as plt

    by_id = {span.id: span for span in spans}

    def depth(span: Span) -> int:
        return 1 + depth(by_id[span.parent]) if span.parent in by_id else 0

    start = min(span.start for span in spans)
    deepest = max(map(depth, spans))
    figure, axes = plt.subplots(figsize=(11, 0.62 * (deepest + 1) + 1.4))
    whole = max(span.start + span.seconds for span in spans) - start
    for span in sorted(spans, key=lambda one: one.start):
        kind = _kind(span)
        left, width = 1000 * (span.start - start), 1000 * span.seconds
        axes.add_patch(
            plt.Rectangle((left, -depth(span) - 0.42), width, 0.84, facecolor=COLORS[kind], edgecolor="white", lw=0.8)
        )
        text = span.name.removeprefix("fastapi.").replace("_", " ")
        if width > 7.5 * len(text) * whole:  # room for about 130 letters from left to right
            color = "white" if kind in ("statement", "pool") else "#222222"
            axes.text(left + width / 2, -depth(span), text, ha="center", va="center", fontsize=8, color=color)
    legend = {"request": "the request", "framework": "the framework", "pool": "waiting for a connection",
              "statement": "a statement"}  # fmt: skip
    handles = [plt.Rectangle((0, 0), 1, 1, color=COLORS[kind]) for kind in legend]
    axes.legend(handles, legend.values(), ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.22), frameon=False)
    axes.set_xlim(-5 * whole, 1005 * whole)
    axes.set_ylim(-deepest - 0.6, 0.6)
    axes.set_yticks([])
    axes.set_xlabel("milliseconds")
    axes.set_title("One slow request, taken apart", fontsize=11)
    for side in ("top", "left", "right"):
        axes.spines[side].set_visible(False)
    plt.close(figure)
    return figure


def _kind(span: Span) -> str:
    if span.statement:
        return "statement"
    if span.name.startswith("fastapi."):
        return "framework"
    return "request" if span.kind == 2 else "pool"


def bars_picture(values: Mapping[str, float], unit: str) -> Any:
    """A bar for each value."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 0.42 * len(values) + 0.8))
    bars = axes.barh(list(values), list(values.values()), color=COLORS["statement"])
    axes.bar_label(bars, fmt="%.1f", fontsize=8, padding=3)
    axes.invert_yaxis()
    axes.set_xlabel(unit)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    plt.close(figure)
    return figure
