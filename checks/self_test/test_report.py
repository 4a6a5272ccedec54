"""What a verdict shows and in which order: one report for a terminal and a notebook."""

from __future__ import annotations

import io
from pathlib import Path

from checks.kit.grading.evidence import Log, places_in, tails
from checks.kit.lessons.lesson import all_lessons, find_lesson
from checks.kit.lessons.words import plural
from checks.kit.report import difference, terminal
from checks.kit.report.html import html
from checks.kit.report.known_errors import explain_error
from checks.kit.report.long_lists import shorten_lists
from checks.kit.report.model import Finding, Outcome, Place, Report, Result
from checks.kit.report.next_step import next_step
from checks.kit.report.places import MADE_IT, endpoint_place, places
from checks.kit.testbed.evidence import Evidence, Line
from checks.kit.testbed.steps import Steps

QUERY = (
    f"SELECT {', '.join(f'books.column_{n}' for n in range(30))} FROM books JOIN authors ON true WHERE books.id = $1"
)
CURL = """curl -X POST localhost:8000/orders -H 'content-type: application/json' -d '{"quantity": 2}'"""


def failed(place: Place) -> Report:
    result = Result("test_it", "It holds", Outcome.FAILED, Finding("POST /orders → 500", "Nobody can order.", "See it"))
    result.steps = [f"POST /orders → 500\n{CURL}"]
    result.evidence = [Evidence("On the wire", [Line(QUERY, "#1", "1 row")])]
    result.places = [place]
    return Report(1, "Sessions", "lessons/lesson_01", "notebooks/lesson_01.ipynb", "PostgreSQL", [result])


GREENLET = Place(
    "lessons/lesson_01/app/orders.py", 26, "place_order", "sqlalchemy.exc.MissingGreenlet: greenlet_spawn …"
)


def printed(report: Report, **options: bool) -> str:
    out = terminal.console(io.StringIO(), 80, styled=False)
    terminal.verdicts(out, report, in_full=options.get("in_full", False))
    return str(out.file.getvalue())  # type: ignore[attr-defined]


def test_a_verdict_begins_with_what_happened() -> None:
    headings = [row.strip() for row in printed(failed(GREENLET)).splitlines() if row[:4].strip() and row[0] == " "]
    assert headings == ["What happened", "Why it matters", "What the check did (-v: the requests in full)",
                        "On the wire", "Where to look"]  # fmt: skip


def test_in_full_a_request_and_a_statement_are_whole() -> None:
    short, full = printed(failed(GREENLET)), printed(failed(GREENLET), in_full=True)
    assert CURL not in short
    assert CURL in full, "in one line, so that it can be copied"
    assert "With `workbook serve 1`, use ids from 1 on." in " ".join(full.split())
    assert "SELECT … FROM books JOIN authors ON true WHERE books.id = $1" in short
    assert QUERY in " ".join(full.split())


def test_a_long_list_of_rows_or_members_shows_two_of_them() -> None:
    rows = [f"($1::VARCHAR, lower($2), {n})" for n in range(50)]
    begin, end = "INSERT INTO books (isbn, title) SELECT p0, lower(p1) FROM (VALUES ", ") AS sen(p0, p1, n)"
    many, few = [f"{begin}{', '.join(rows[:n])}{end}" for n in (50, 5)]
    assert shorten_lists(many) == f"{begin}{rows[0]}, {rows[1]}, … 48 more{end}"
    assert shorten_lists(few) == few
    whole = many.removesuffix(end)
    assert shorten_lists(whole) == f"{begin}{rows[0]}, {rows[1]}, … 48 more"
    for size in (len(whole) - 5, 400):  # a text that is too long was cut
        assert shorten_lists(many[:size]) == f"{begin}{rows[0]}, {rows[1]}, … and more"
    members = ", ".join(f"${n}::BIGINT" for n in range(1, 501))
    query = f"SELECT id FROM books WHERE id IN ({members}) AND stock IN (1, 2)"
    assert shorten_lists(query) == (
        "SELECT id FROM books WHERE id IN ($1::BIGINT, $2::BIGINT, … 498 more) AND stock IN (1, 2)"
    )


def test_a_verdict_names_the_hints_that_there_are() -> None:
    report, lesson = failed(GREENLET), find_lesson(1)
    for name in (next(iter(lesson.hints)), "test_it"):
        report.results[0].name = name
        there = name in lesson.hints
        assert (f"workbook hint 1 {name}" in printed(report)) is there
        assert (f"hint(&quot;lesson_01&quot;, &quot;{name}&quot;)" in html(report)) is there


def test_an_exception_with_words_of_its_own_is_explained() -> None:
    assert "Lessons 02 and 03 are about this" in " ".join(printed(failed(GREENLET)).split())
    assert "Lessons 02 and 03 are about this" in html(failed(GREENLET))
    begun = "sqlalchemy.exc.InvalidRequestError: A transaction is already begun on this Session."
    assert "its first statement began it" in explain_error(begun)
    assert explain_error("ValueError: no") == ""


def test_a_notebook_folds_the_request_in_full() -> None:
    page = html(failed(GREENLET))
    assert page.index("What happened") < page.index("Why it matters") < page.index("What the check did")
    assert "<li>POST /orders → 500<details><summary>in full</summary><pre>curl -X POST" in page


def test_the_file_to_open_is_never_the_first_of_a_list(tmp_path: Path) -> None:
    assert next_step(failed(GREENLET)) == "lessons/lesson_01/app/orders.py:26"
    report = failed(GREENLET)
    report.results[0].places = []
    assert next_step(report) == "lessons/lesson_01/README.md, section “Where”"


def test_after_the_last_lesson_the_overview_is_next() -> None:
    last = all_lessons()[-1]
    report = Report(last.number, last.title, f"lessons/{last.name}")
    report.results = [Result("test_it", "It holds", Outcome.PASSED)]
    assert next_step(report).startswith("`workbook`")


def test_a_step_is_counted_and_keeps_how_it_is_repeated() -> None:
    steps = Steps()
    for quantity in (2, 3, 2):
        steps.add("POST /orders → 201", detail=f"curl -d {quantity}", is_response=True)
    assert steps.rendered() == ["POST /orders → 201  ×3\ncurl -d 2\ncurl -d 3"]
    for quantity in range(9):
        steps.add("POST /orders → 201", detail=f"curl -d {quantity}", is_response=True)
    assert steps.rendered()[0].splitlines()[-1] == "…", "a hundred requests do not fill the page"


def test_the_endpoint_is_that_of_the_response_that_the_verdict_is_about() -> None:
    steps = Steps()
    steps.add("POST /orders → 500", is_response=True, endpoint="orders.py:7:place_order")
    steps.add("GET /books/1 → 200", is_response=True, endpoint="books.py:5:read_book")
    steps.add("DELETE /books/1 → 405", is_response=True)
    assert steps.endpoint_of("POST /orders → 500 Internal Server Error") == "orders.py:7:place_order"
    assert steps.endpoint_of("The log is silent.") == ""
    assert Steps().endpoint_of("Nothing was asked.") == ""


def test_no_endpoint_is_blamed_for_what_happened_after_it_or_for_one_of_many() -> None:
    stopped, at_once = Steps(), Steps()
    stopped.add("GET /health → 200", is_response=True, endpoint="main.py:21:health")
    stopped.add("SIGTERM sent to the app")
    assert stopped.endpoint_of("1 of 1 connections ended without Terminate.") == ""
    assert stopped.endpoint_of("GET /health → 200") == "main.py:21:health"
    for number in range(20):
        at_once.add(f"GET /books/{number} → 200", is_response=True, endpoint="books.py:22:read_book")
    assert at_once.endpoint_of("20 times as many statements.") == "books.py:22:read_book", "nothing else was asked"
    at_once.add("POST /orders → 201", is_response=True, endpoint="orders.py:7:place_order")
    assert at_once.endpoint_of("20 requests at once. Stored: 10 orders.") == ""


def test_an_endpoint_is_believed_only_inside_the_lesson(tmp_path: Path) -> None:
    folder = tmp_path / "lessons" / "lesson_01"
    inside = f"{folder}/app/my orders.py:12:place_order"
    files = ["app/my orders.py", "app/a.py"]
    assert endpoint_place(inside, folder, tmp_path, files) == Place(
        "lessons/lesson_01/app/my orders.py", 12, "place_order", MADE_IT
    )
    for other in ("/etc/shadow.py:1:x", f"{folder}/app/a.py:1:x\x1b[2J", f"{folder}/app/a.py:1", "", "x" * 9000):
        assert endpoint_place(other, folder, tmp_path, files) is None
    assert endpoint_place(inside, folder, tmp_path, ["app/main.py"]) is None, "the lesson is not about this file"


def test_a_traceback_counts_more_than_a_warning_and_that_more_than_the_endpoint(tmp_path: Path) -> None:
    warning = f"{tmp_path}/app/main.py:18: RuntimeWarning: coroutine 'AsyncEngine.dispose' was never awaited\n"
    trace = (
        f'Traceback (most recent call last):\n  File "{tmp_path}/app/books.py", line 3, in read\n    x\nKeyError: 1\n'
    )
    [found] = places(warning, tmp_path, tmp_path)
    assert (found.path, found.line, found.error.partition(":")[0]) == ("app/main.py", 18, "RuntimeWarning")
    assert [place.line for place in places(warning + trace, tmp_path, tmp_path)] == [3, 18]
    endpoint = f"{tmp_path}/app/books.py:9:read"
    files = ["app/books.py"]
    assert [place.line for place in places_in([Log("app", trace)], tmp_path, endpoint, files)] == [3]
    assert [place.line for place in places_in([Log("app", "INFO: nothing")], tmp_path, endpoint, files)] == [9]
    caused = places_in([Log("app", trace)], tmp_path, endpoint, files, {"KeyError"})
    assert [place.line for place in caused] == [9], "the check has caused the error itself"
    logs = [Log("app", trace)]
    shown = [len(tails(logs, tmp_path, provoked)) for provoked in (set[str](), {"KeyError"})]
    assert shown == [0, 1], "the log is shown where no place of it is"


def test_the_line_that_called_sqlalchemy_counts_and_not_one_that_it_calls(tmp_path: Path) -> None:
    trace = f"""Traceback (most recent call last):
  File "/venv/starlette/routing.py", line 1, in app
  File "{tmp_path}/app/auth.py", line 12, in login
    if customer.active:
  File "/venv/sqlalchemy/orm/attributes.py", line 2, in __get__
  File "{tmp_path}/app/busy.py", line 53, in connect
    return super().connect()
  File "/venv/sqlalchemy/util/_concurrency_py3k.py", line 3, in await_only
sqlalchemy.exc.MissingGreenlet: greenlet_spawn has not been called
"""
    assert [place.line for place in places(trace * 2, tmp_path, tmp_path)] == [12]
    only_there = trace.replace(f"{tmp_path}/app/auth.py", "/elsewhere/auth.py")
    assert [place.line for place in places(only_there, tmp_path, tmp_path)] == [53]


def test_the_cause_comes_before_what_follows_from_it(tmp_path: Path) -> None:
    trace = 'Traceback (most recent call last):\n  File "{}/app/{}", line {}, in f\n    x\n{}\n'
    first = trace.format(tmp_path, "dashboard.py", 15, "InvalidRequestError: concurrent operations are not permitted")
    second = trace.format(tmp_path, "database.py", 30, "sqlalchemy.exc.IllegalStateChangeError: Method 'close()'")
    assert [place.line for place in places(first + second, tmp_path, tmp_path)] == [15, 30]
    assert [place.line for place in places(second, tmp_path, tmp_path)] == [30]


def test_a_difference_names_the_fields_that_differ() -> None:
    stored, returned = (
        {"isbn": "080442957X", "revision": 2, "stock": 1},
        {"isbn": "0-8044", "revision": 2, "note": None},
    )
    assert difference(stored, returned).splitlines() == [
        "isbn: stored '080442957X', returned '0-8044'",
        "stock: stored 1, returned nothing",
        "note: stored nothing, returned None",
    ]
    assert difference(stored, stored) == ""


def test_singular_and_plural_are_right() -> None:
    assert [plural(n, "order") for n in (0, 1, 2)] == ["0 orders", "1 order", "2 orders"]
    assert plural(2, "copy", "copies") == "2 copies"
