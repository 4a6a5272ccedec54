"""The page of `workbook watch`: whatever a verdict holds, its beginning is on the screen, and so are the keys."""

from __future__ import annotations

import io
import re

import pytest

from checks.kit.cli.screen import KEYS, Lines, Page
from checks.kit.cli.verdict_rows import folded
from checks.kit.lessons.lesson import Lesson, find_lesson
from checks.kit.report import terminal
from checks.kit.report.live import LiveReport
from checks.kit.report.model import Finding, Outcome, Place, Report, Result
from checks.kit.testbed.evidence import Evidence, Line

LOG = [Line(" ".join(["reconnecting"] * 20)), *[Line("retrying")] * 30]


def red(lesson: Lesson, number: int) -> Result:
    """A failed check with more to tell than a page has room for."""
    entry = lesson.checks[number]
    return Result(
        entry.name,
        lesson.titles[entry.name],
        Outcome.FAILED,
        Finding("What was seen. " * 8, "What it costs. " * 8, "A section"),
        steps=[f"GET /books/{step} → 200" for step in range(40)],
        evidence=[Evidence("The last lines that the app printed", LOG)],
        places=[Place("lessons/lesson_01/app/books.py", 16, "create_book", "ValueError: " + "wrong " * 30)],
    )


def live(lesson: Lesson, failed: int) -> LiveReport:
    """A finished grading in which the first checks failed and the others passed."""
    report = LiveReport()
    passed = [Result(entry.name, lesson.titles[entry.name]) for entry in lesson.checks[failed:]]
    results = [*(red(lesson, number) for number in range(failed)), *passed]
    report.report = Report(lesson.number, lesson.title, "lessons/lesson_01", "notebooks/lesson_01.ipynb", "", results)
    return report


def shown(page: Page | Lines) -> list[str]:
    """The rows that were printed since the screen was cleared, without colors."""
    assert isinstance(page.out.file, io.StringIO)
    printed = page.out.file.getvalue().rpartition("\x1b[2J")[2]
    return re.sub(r"\x1b(\[[0-9;?]*[A-Za-z]|\][^\x1b]*\x1b\\)", "", printed).split("\n")


def page_of(height: int, width: int) -> Page:
    page = Page()
    page.out = terminal.console(io.StringIO(), width=width, styled=True)
    page.out.height = height
    return page


@pytest.mark.parametrize("failed", (1, 2, 9))
@pytest.mark.parametrize(("height", "width"), ((24, 80), (15, 40), (60, 200)))
def test_the_title_the_finding_and_the_keys_stay_on_the_screen(height: int, width: int, failed: int) -> None:
    lesson, page = find_lesson(1), page_of(height, width)
    page.begins(lesson, ())
    page.ended(live(lesson, failed))
    rows = shown(page)
    assert len(rows) <= height
    assert max(map(len, rows)) <= width
    assert rows[0].startswith("Bookshop · lesson 01")
    title = lesson.titles[lesson.checks[0].name]
    assert " ".join(" ".join(rows[1:5]).split()).startswith(f"✗ {title}")
    assert height < 24 or any("What happened" in row for row in rows)
    assert " · ".join(row for row in rows[-4:] if " · " in row or row == "q quit").endswith(KEYS)
    words = set(re.findall(r"[a-z]+", " ".join(rows)))
    assert not words & {"reconnect", "reconnec", "reconne", "wron", "wro"}  # broken between words only


@pytest.mark.parametrize("height", (4, 8, 12))
def test_a_tiny_terminal_shows_at_least_the_title(height: int) -> None:
    lesson, page = find_lesson(1), page_of(height, 30)
    page.begins(lesson, ())
    page.ended(live(lesson, 9))
    assert any("✗" in row for row in shown(page))


def test_the_first_red_check_is_shown_with_the_progress_below_it() -> None:
    lesson, page = find_lesson(1), page_of(24, 80)
    page.begins(lesson, ())
    report = live(lesson, 1)
    assert report.report is not None
    report.running = "The next one"
    page.result(report, report.report.results[0])
    rows = shown(page)
    assert rows[1].startswith("✗")
    assert rows[-1].strip().endswith("The next one")
    assert len(rows) <= 24


def test_a_notice_stays_on_the_page_until_the_next_run() -> None:
    lesson, page = find_lesson(1), page_of(24, 80)
    page.begins(lesson, ())
    page.notice("The system cannot watch more files. " * 5)
    page.ended(live(lesson, 9))
    rows = shown(page)
    assert rows[1].startswith("The system cannot watch") and len(rows) <= 24
    page.begins(lesson, ())
    assert "The system" not in " ".join(shown(page))


def test_a_check_that_passed_at_the_last_run_says_so() -> None:
    lesson = find_lesson(1)
    were_green = {lesson.checks[0].name, lesson.checks[8].name}
    page = page_of(24, 80)
    page.begins(lesson, were_green)
    page.ended(live(lesson, 9))
    rows = shown(page)
    assert rows[2:4] == ["it", "     It passed at the last run."]  # below the title's two rows
    assert len([row for row in rows if row.endswith("(passed at the last run)")]) == 1
    lines = Lines()
    lines.out = terminal.console(io.StringIO(), width=80)
    lines.begins(lesson, were_green)
    for number in range(9):
        lines.result(LiveReport(), red(lesson, number))
    assert shown(lines).count("    It passed at the last run.") == 2


def test_lines_that_repeat_are_shown_once() -> None:
    traceback = [Line("Traceback"), Line("  File"), Line("ValueError")]
    ports = [Line(f"INFO 12:00:0{second} 127.0.0.1:5000{second} GET /health 503") for second in range(5)]
    different = [Line("order 1"), Line("order 2")]
    texts = [line.text for line in folded([*traceback * 3, *ports, *different])]
    assert texts == [
        *("Traceback", "  File", "ValueError", "… the 3 lines above, 2 more times"),
        "INFO 12:00:00 127.0.0.1:50000 GET /health 503  ×5",
        *("order 1", "order 2"),
    ]


def test_the_address_of_the_page_for_the_browser_stays_below_the_title() -> None:
    lesson, page = find_lesson(1), page_of(24, 80)
    page.address = f"The page: http://127.0.0.1:40000/{'x' * 22}/"
    page.begins(lesson, ())
    page.ended(live(lesson, 3))
    rows = shown(page)
    assert len(rows) <= 24
    assert rows[1] == page.address
    assert any("What happened" in row for row in rows)
