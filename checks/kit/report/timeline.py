"""What crossed the wire during a check, with times: requests, statements, and what the check did to the traffic."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from checks.kit.lessons.words import plural
from checks.kit.report.long_lists import shorten_lists
from checks.kit.service.process import Sent
from checks.kit.testbed.steps import HELD

if TYPE_CHECKING:
    from checks.kit.wire import Recording
    from checks.kit.wire.statements import Statement

State = Literal["", "held", "failed", "silent"]
"""`silent`: nothing came back."""

MAX_SPANS = 150
"""Spans that are kept; the last ones. A check with many concurrent requests has thousands."""

MAX_TEXT = 1_000
"""Characters of a statement that are kept."""


@dataclass(frozen=True, slots=True)
class Span:
    """A request, a statement, or an event such as a connection that was cut, which takes no time.

    Times are milliseconds since the first span; `end` is None where nothing came back. `connection` counts those of the
    timeline from 1, and is 0 for what is not a statement; `process` is empty where all statements are of one.
    `transaction` is from when to when the explicit transaction was open to which a statement belongs.
    """

    kind: Literal["request", "statement", "event"]
    text: str
    start: float
    end: float | None
    result: str = ""
    state: State = ""
    connection: int = 0
    process: str = ""
    transaction: tuple[float, float] | None = None

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> Span:
        transaction = raw["transaction"]
        return cls(**raw | {"transaction": tuple(transaction) if transaction else None})


@dataclass(frozen=True, slots=True)
class Timeline:
    """Spans in the order in which they began; `hidden` ones came before them. `length` is in milliseconds."""

    spans: list[Span]
    length: float
    hidden: int = 0

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> Timeline:
        """The timeline of which `asdict` made this dictionary."""
        return cls(**raw | {"spans": [Span.from_dict(one) for one in raw["spans"]]})


def timeline(
    seen: Recording, requests: Iterable[Sent], events: Iterable[tuple[float, str]], now: float
) -> Timeline | None:
    """What happened until `now`; None if nothing did. Times are seconds of time.perf_counter.

    That a statement is held is said of the statement, and is no event besides.
    """
    statements = seen.for_display
    several = len({statement.process for statement in statements}) > 1
    begins: list[tuple[float, Statement | Sent | str]] = [
        *((statement.started, statement) for statement in statements),
        *((sent.began, sent) for sent in requests),
        *((at, sentence) for at, sentence in events if not sentence.startswith(HELD)),
    ]
    begins.sort(key=lambda pair: pair[0])
    shown = begins[-MAX_SPANS:]
    if not shown:
        return None
    first = shown[0][0]
    numbers: dict[int, int] = {}
    spans = []
    for at, what in shown:
        if isinstance(what, str):
            spans.append(Span("event", what, _ms(at, first), _ms(at, first)))
        elif isinstance(what, Sent):
            spans.append(_request(what, first))
        else:
            number = numbers.setdefault(what.connection, len(numbers) + 1)
            spans.append(_statement(what, seen, first, now, number, what.process if several else ""))
    return Timeline(spans, max(_ms(now, first), 0.001), len(begins) - len(shown))


def _ms(moment: float, first: float) -> float:
    return round((moment - first) * 1000, 3)


def _request(sent: Sent, first: float) -> Span:
    answered = sent.outcome[:3].isdigit()
    state: State = "" if answered and sent.outcome[0] < "5" else "failed"
    end = None if sent.ended is None else _ms(sent.ended, first)
    return Span("request", sent.what, _ms(sent.began, first), end, sent.outcome, "silent" if end is None else state)


def _statement(statement: Statement, seen: Recording, first: float, now: float, number: int, process: str) -> Span:
    spans = [
        (_ms(transaction.began, first), _ms(now if transaction.ended is None else transaction.ended, first))
        for transaction in seen.transactions
        if transaction.connection == statement.connection
        and transaction.began <= statement.started
        and (transaction.ended is None or statement.started <= transaction.ended)
    ]
    state: State = "held" if statement.held else ""
    if statement.error or statement.finished is None:
        state = "failed" if statement.error else "silent"
    return Span(
        "statement",
        shown_text(statement),
        _ms(statement.started, first),
        None if statement.finished is None else _ms(statement.finished, first),
        what_came_back(statement),
        state,
        number,
        process,
        spans[-1] if spans else None,
    )


def shown_text(statement: Statement) -> str:
    """The statement on one line, without the rows of a long list."""
    return shorten_lists(" ".join(statement.text[: 10 * MAX_TEXT].split()))[:MAX_TEXT]


def what_came_back(statement: Statement) -> str:
    """Rows, an error, or nothing, in words."""
    held = "held on the wire, " if statement.held else ""
    if statement.error:
        return f"{held}{statement.error.sqlstate}: {statement.error.message}"[:MAX_TEXT]
    if statement.finished is None:
        return f"{held}no response"
    return held + (plural(statement.rows, "row") if statement.rows else statement.tag.lower() or "ok")
