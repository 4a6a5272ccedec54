"""The timeline of a failed check: what is in it, and how it is drawn."""

from __future__ import annotations

import json
from dataclasses import asdict

from checks.kit.report.model import Outcome, Report, Result
from checks.kit.report.timeline import MAX_SPANS, Timeline, timeline
from checks.kit.service.process import Sent
from checks.kit.view.timeline import drawing, duration
from checks.kit.wire.recording import Recording, TrafficLog, Transaction
from checks.kit.wire.statements import ServerError, Statement


def recorded() -> tuple[Recording, list[Sent], list[tuple[float, str]]]:
    """An order whose COMMIT is held while the response has left, a failed INSERT, and one that was cut."""
    log = TrafficLog()
    with log.watching() as seen:
        log.add(Statement(7, "BEGIN;", 10.0, finished=10.001, tag="BEGIN"))
        log.add_transaction(Transaction(7, 10.001, 10.5, "commit"))
        log.add(Statement(7, "INSERT INTO orders\n VALUES (1)", 10.1, finished=10.2, rows=1, in_transaction=True))
        log.add(Statement(7, "COMMIT", 10.3, finished=10.5, tag="COMMIT", held=True, in_transaction=True))
        log.add(Statement(9, "INSERT INTO books", 10.4, finished=10.45, error=ServerError("23505", "duplicate key")))
        log.add(Statement(9, "SELECT 1 FROM books", 10.6))
    sent = [Sent("POST /orders", 9.9, 10.35, "201"), Sent("GET /books", 10.55)]
    return seen, sent, [(10.3, "held on the wire: COMMIT"), (10.7, "1 database connections cut")]


def test_requests_statements_and_events_are_in_the_order_in_which_they_began() -> None:
    seen, sent, events = recorded()
    made = timeline(seen, sent, events, 10.9)
    assert made is not None
    assert [(span.text, span.result, span.state, span.connection) for span in made.spans] == [
        ("POST /orders", "201", "", 0),
        ("BEGIN;", "begin", "", 1),
        ("INSERT INTO orders VALUES (1)", "1 row", "", 1),
        ("COMMIT", "held on the wire, commit", "held", 1),
        ("INSERT INTO books", "23505: duplicate key", "failed", 2),
        ("GET /books", "no response yet", "silent", 0),
        ("SELECT 1 FROM books", "no response", "silent", 2),
        ("1 database connections cut", "", "", 0),
    ]
    assert made.spans[0].end == 450.0
    assert made.spans[2].transaction == (101.0, 600.0)
    assert made.length == 1000.0
    assert [span.process for span in made.spans] == [""] * 8
    assert timeline(TrafficLog().watching().__enter__(), [], [], 1.0) is None


def test_it_reaches_the_page_and_no_file() -> None:
    made = timeline(*recorded(), 10.9)
    result = Result("test_x", "x", Outcome.FAILED, timeline=made)
    assert Result.from_dict(json.loads(json.dumps(asdict(result)))) == result
    report = Report(1, "t", "lessons", results=[result])
    assert "timeline" not in json.dumps(report.to_dict())
    assert Report.from_dict(report.to_dict()).results[0].timeline is None


def test_of_very_many_the_last_are_kept() -> None:
    seen, _, _ = recorded()
    sent = [Sent(f"GET /{number}", 11 + number / 1000, 20.0, "200") for number in range(1000)]
    made = timeline(seen, sent, [], 21.0)
    assert made is not None
    assert (len(made.spans), made.hidden) == (MAX_SPANS, 1005 - MAX_SPANS)
    assert made.spans[0].start == 0


def test_bars_are_percents_of_the_length() -> None:
    made = timeline(*recorded(), 10.9)
    assert isinstance(made, Timeline)
    drawn = drawing(made)
    assert [(row.begins, row.ends) for row in drawn.rows][:3] == [(0.0, 45.0), (10.0, 10.1), (20.0, 30.0)]
    assert drawn.rows[-2].ends == 100.0
    assert drawn.rows[2].band == (10.1, 60.0)
    assert drawn.moments == [80.0]
    assert [row.who for row in drawn.rows[:2]] == ["", "#1"]
    assert drawn.rows[5].took == "from 650 ms on"
    assert [duration(at) for at in (0.04, 9.96, 999.6)] == ["0.0 ms", "10 ms", "1.0 s"]
