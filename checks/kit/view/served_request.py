"""One request of `workbook serve`, with the statements that were sent meanwhile."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from checks.kit.report.timeline import MAX_SPANS, Span, State, Timeline
from checks.kit.service.process import APP
from checks.kit.view.timeline import Drawing, drawing, duration


@dataclass(slots=True)
class Happening:
    """A statement, or a call of an outside service; times are seconds of time.perf_counter."""

    text: str
    began: float
    ended: float | None
    result: str
    failed: bool = False
    connection: int = 0
    process: str = ""

    def span(self, first: float) -> Span:
        """As a part of a timeline that begins at `first`."""
        kind: Literal["statement", "request"] = "statement" if self.connection else "request"
        state: State = "failed" if self.failed else ""
        process = "" if self.process == APP else self.process
        start = (self.began - first) * 1000
        return Span(kind, self.text, start, _ms(self.ended, first), self.result, state, self.connection, process)


@dataclass(slots=True)
class Request:
    """A request to the served app, or what happened outside of any. `status` is 0 before the response.

    `responded` is when the response left, `ended` when the app was done with the request. `shared`: others were under
    way at the same time, so that a statement may be theirs.
    """

    key: str
    name: str
    began: float
    outside: bool = False
    status: int = 0
    responded: float | None = None
    ended: float | None = None
    error: str = ""
    shared: bool = False
    happened: list[Happening] = field(default_factory=list)

    @property
    def state(self) -> str:
        if self.outside:
            return "outside"
        if not self.status:
            return "failed" if self.error or self.ended is not None else "open"
        return "failed" if self.status >= 500 else "refused" if self.status >= 400 else "passed"

    @property
    def outcome(self) -> str:
        """Its status, or why there is none."""
        if self.outside:
            return ""
        return str(self.status) if self.status else "no response" if self.ended is not None else "no response yet"

    @property
    def statements(self) -> int:
        return sum(bool(each.connection) for each in self.happened)

    @property
    def took(self) -> str:
        """The time until its response left."""
        return duration((self.responded - self.began) * 1000) if self.responded is not None else ""

    @property
    def drawing(self) -> Drawing | None:
        """The request and what happened meanwhile, over time; None if nothing did."""
        if not self.happened:
            return None
        shown = sorted(self.happened, key=lambda each: each.began)[-MAX_SPANS:]
        first = shown[0].began if self.outside else self.began
        spans = [each.span(first) for each in shown]
        if not self.outside:
            state: State = "failed" if self.state == "failed" else ""
            spans.insert(0, Span("request", self.name, 0.0, _ms(self.responded, first), self.outcome, state))
        length = max(span.start if span.end is None else span.end for span in spans)
        return drawing(Timeline(spans, max(length, 0.001), len(self.happened) - len(shown)))


def _ms(moment: float | None, first: float) -> float | None:
    return None if moment is None else (moment - first) * 1000
