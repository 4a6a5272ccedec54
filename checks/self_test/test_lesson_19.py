"""The rehearsal of lesson 19: its timeline, its traffic, its sums, the old release; scores of subsystems, no hints."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from typing import Any

import httpx
import pytest

from checks.kit.lessons.errors import WorkbookError
from checks.kit.lessons.hints import choose_check
from checks.kit.lessons.lesson import find_lesson
from checks.kit.lessons.progress import Progress
from checks.kit.lessons.unfinished import missing
from checks.kit.report.model import Outcome, Report, Result
from checks.kit.report.scores import Score, score_lines, scores
from checks.kit.service.app import Response
from checks.kit.submissions.model import Grade, Gradebook, LearnerGrades, Submission
from checks.kit.submissions.results import write
from checks.kit.testbed.outside_service import Answer, Call, OutsideService
from checks.lesson_13.replay import MANY, Step
from checks.lesson_19 import audit, old_release
from checks.lesson_19.deploy import harms
from checks.lesson_19.timeline import FAILED, LEGEND, MAX_LINES, REFUSED, SERVED, Sent, Timeline, told

LESSON = find_lesson(19)
KEY, REFUND = "11111111-1111-1111-1111-111111111111", "22222222-2222-2222-2222-222222222222"


def test_the_old_release_is_solution_18() -> None:
    assert old_release.tree() == old_release.wanted(), "type: uv run python -m checks.lesson_19.old_release"


def response(status: int, **headers: str) -> Response:
    return Response(
        "GET /", status, httpx.Headers({name.replace("_", "-"): text for name, text in headers.items()}), ""
    )


@pytest.mark.parametrize(
    ("came", "mark"),
    [
        (response(200), SERVED),
        (response(503, retry_after="2"), REFUSED),
        (response(503), FAILED),
        (response(500), FAILED),
        (None, FAILED),
    ],
)
def test_each_request_of_the_traffic_has_a_mark(came: Response | None, mark: str) -> None:
    assert Sent("GET /", came).mark == mark


def test_a_timeline_can_be_read_in_a_minute() -> None:
    timeline = Timeline()
    for number in range(100):
        timeline.note(f"{number} " + "a very long moment " * 20)
        timeline.sent("traffic", [Sent("GET /", response(200))] * 200)
    lines = timeline.lines()
    assert len(lines) <= MAX_LINES
    assert max(map(len, lines)) < 100
    assert lines[-1] == LEGEND
    assert told(SERVED * 2 + FAILED) == "3 requests: 2 served, 1 failed"


def provider(*calls: Call) -> OutsideService:
    service = OutsideService("payment provider")
    service.calls = list(calls)
    return service


def call(path: str, key: str, body: str, status: int = 201) -> Call:
    return Call("POST", path, {}, {"idempotency-key": key}, body.encode(), decided=Answer(status))


CHARGE = call("/charges", KEY, '{"amount_cents": 900}')
BACK = f'{{"charge_key": "{KEY}", "amount_cents": 900}}'


@pytest.mark.parametrize(
    ("status", "calls", "wrong"),
    [
        ("paid", [CHARGE], False),
        ("cancelled", [CHARGE, call("/refunds", REFUND, BACK)], False),
        ("cancelled", [CHARGE, call("/refunds", REFUND, BACK), call("/refunds", REFUND, BACK)], False),
        ("cancelled", [CHARGE, call("/refunds", REFUND, BACK, 500), call("/refunds", REFUND, BACK)], False),
        ("paid", [CHARGE, call("/refunds", REFUND, BACK)], True),
        ("cancelled", [CHARGE], True),
        ("cancelled", [CHARGE, call("/refunds", KEY, BACK)], True),
        ("cancelled", [CHARGE, call("/refunds", REFUND, BACK), call("/refunds", "another", BACK)], True),
        ("paid", [], True),
        ("paid", [CHARGE, call("/charges", "of nobody", '{"amount_cents": 1}')], True),
    ],
)
def test_money_adds_up(status: str, calls: list[Call], wrong: bool) -> None:
    row: dict[str, Any] = {"id": 1, "status": status, "payment": "accepted", "key": KEY, "amount_cents": 900}
    service = provider(*calls)
    assert bool(list(audit.of_money([row], audit.charges(service), audit.given_back(service)))) is wrong


@pytest.mark.parametrize(
    ("status", "calls", "wrong"),
    [
        ("cancelled", [CHARGE, call("/refunds", KEY, BACK)], False),
        ("cancelled", [CHARGE, call("/refunds", REFUND, BACK), call("/refunds", "another", BACK)], False),
        ("cancelled", [CHARGE, call("/refunds", REFUND, BACK, 500)], True),
        ("paid", [CHARGE, call("/refunds", REFUND, BACK)], True),
    ],
)
def test_one_check_alone_looks_at_the_keys_of_refunds(status: str, calls: list[Call], wrong: bool) -> None:
    row: dict[str, Any] = {"id": 1, "status": status, "payment": "accepted", "key": KEY, "amount_cents": 900}
    service = provider(*calls)
    assert bool(list(audit.of_money([row], audit.charges(service), audit.asked_back(service)))) is wrong


def a_report(*failed: str) -> Report:
    results = [
        Result(entry.name, entry.name, Outcome.FAILED if entry.name in failed else Outcome.PASSED)
        for entry in LESSON.checks
    ]
    return Report(19, LESSON.title, "lessons/lesson_19", results=results)


def test_each_check_counts_for_a_subsystem() -> None:
    assert all(entry.subsystem for entry in LESSON.checks)
    found = scores(LESSON, a_report("test_each_mail_is_sent", "test_the_sale_adds_up"))
    assert Score("mail", 0, 1) in found
    assert Score("orders and stock", 2, 3) in found
    assert sum(score.of for score in found) == len(LESSON.checks)
    assert sum(score.passed for score in found) == len(LESSON.checks) - 2


def test_scores_are_shown_of_whole_runs_only() -> None:
    report = a_report()
    assert len(score_lines(LESSON, report)) == len(scores(LESSON, report))
    assert score_lines(LESSON, replace(report, results=report.results[:3])) == []
    assert scores(find_lesson(1), Report(1, "", "")) == []


def test_a_class_has_a_table_of_subsystems() -> None:
    learners = [
        LearnerGrades(Submission("ada", "ada.zip", {19: {}}), {19: Grade(a_report("test_each_mail_is_sent"), 1.0)}),
        LearnerGrades(Submission("bob", "bob.zip", {})),
    ]
    files = dict(write.files(Gradebook([LESSON], "PostgreSQL 18", "", "0", learners)))
    rows = list(csv.DictReader(io.StringIO(files["subsystems.csv"].decode("utf-8-sig"))))
    assert [row["passed"] for row in rows if row["subsystem"] == "mail"] == ["0", ""]
    assert {row["lesson"] for row in rows} == {"19"}
    assert "subsystems.csv" not in dict(write.files(Gradebook([find_lesson(1)], "", "", "0", [])))


def test_an_exam_has_no_hints() -> None:
    assert not LESSON.hints
    assert missing(LESSON) == []
    assert any("hints.toml" in line for line in missing(replace(LESSON, gives_hints=True)))
    with pytest.raises(WorkbookError, match="no hints: it is an exam"):
        choose_check(LESSON, "", Progress())


LOCKED, WRITTEN = {"outbox": {"AccessExclusiveLock"}}, {"outbox": {"RowExclusiveLock"}}


def batches(locks: dict[str, set[str]], transactions: list[int]) -> list[Step]:
    """Statements that read two fifths of too many rows each, by the numbers of their transactions."""
    return [Step("UPDATE outbox", {"outbox": MANY * 2 // 5}, locks, number) for number in transactions]


@pytest.mark.parametrize(
    ("locks", "transactions", "found"),
    [(LOCKED, [1, 1, 1], 1), (LOCKED, [1, 2, 3], 0), (WRITTEN, [1, 1, 1], 0), (LOCKED, [1, 1, 2, 2, 2], 1)],
)
def test_batches_of_one_transaction_add_up(locks: dict[str, set[str]], transactions: list[int], found: int) -> None:
    assert len(list(harms(batches(locks, transactions)))) == found
