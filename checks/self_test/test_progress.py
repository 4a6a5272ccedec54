"""What counts as progress: complete runs of one state of the code, whoever else writes at the same time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from checks.kit.lessons.code_state import code_state
from checks.kit.lessons.lesson import find_lesson
from checks.kit.lessons.paths import ROOT
from checks.kit.lessons.progress import Progress
from checks.kit.report.model import Report, Result
from checks.kit.report.next_step import next_step
from checks.kit.report.terminal import console, summary

CHECKS = [f"test_{number}" for number in range(6)]


GRADER = f"""
import sys
from pathlib import Path

from checks.kit.lessons.paths import ROOT
from checks.kit.lessons.progress import Progress

progress = Progress(Path(sys.argv[1]))
for name in {CHECKS}:
    progress.record(sys.argv[2], name, "passed")
    progress.give_hint("lesson_05", "test_hint")
progress.record_run(sys.argv[2], dict.fromkeys({CHECKS}, "passed"))
"""


def test_runs_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    Progress(path).record_run("lesson_05", {"test_before": "passed"})
    lessons = ["lesson_01", "lesson_02", "lesson_03"]
    runs = [subprocess.Popen([sys.executable, "-c", GRADER, path, lesson], cwd=ROOT) for lesson in lessons]
    assert [run.wait() for run in runs] == [0, 0, 0]
    after = Progress(path)
    assert all(after.passed(lesson, CHECKS) for lesson in lessons)
    assert after.passed("lesson_05", ["test_before"])
    assert after.hints("lesson_05", "test_hint") == len(lessons) * len(CHECKS)
    assert {file.name for file in tmp_path.iterdir()} == {"progress.json", "progress.lock"}


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "null",
        '"text"',
        "{",
        "[" * 100_000,
        '{"lesson_01": []}',
        '{"lesson_01": {"checks": ["test_0"], "recent": 1, "hints": 3}}',
        '{"lesson_01": {"checks": {"test_0": "green"}, "hints": {"test_0": "two"}}}',
        '{"lesson_01": {"checks": {"test_0": ["passed"]}}}',
    ],
)
def test_a_file_of_another_shape_counts_as_empty(tmp_path: Path, text: str) -> None:
    path = tmp_path / "progress.json"
    path.write_text(text)
    progress = Progress(path)
    assert progress.outcomes("lesson_01") == progress.recent("lesson_01") == {}
    assert progress.hints("lesson_01", "test_0") == 0
    assert not progress.passed("lesson_01", ["test_0"])
    assert not progress.skipped("lesson_01")
    progress.give_hint("lesson_01", "test_0")
    assert Progress(path).hints("lesson_01", "test_0") == 1


def test_parts_that_pass_do_not_add_up_to_a_lesson(tmp_path: Path) -> None:
    """They may have passed for different states of the code."""
    progress = Progress(tmp_path / "progress.json")
    for name in CHECKS:
        progress.record("lesson_01", name, "passed")
    assert not progress.passed("lesson_01", CHECKS)
    assert progress.recent("lesson_01") == dict.fromkeys(CHECKS, "passed")
    progress.record_run("lesson_01", dict.fromkeys(CHECKS, "passed"))
    progress.record("lesson_01", CHECKS[0], "failed")
    assert progress.passed("lesson_01", CHECKS)
    assert progress.recent("lesson_01")[CHECKS[0]] == "failed"


def test_only_what_people_edit_is_the_state_of_the_code(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app/main.py").write_text("x = 1\n")
    before = code_state(tmp_path)
    (tmp_path / "app.log").write_text("a request\n")
    (tmp_path / "app/__pycache__").mkdir()
    (tmp_path / "app/__pycache__/main.cpython-311.pyc").write_text("")
    assert code_state(tmp_path) == before
    (tmp_path / "app/main.py").write_text("x = 2\n")
    assert code_state(tmp_path) != before


def _summary(report: Report) -> str:
    out = console(width=80)
    with out.capture() as capture:
        summary(out, report, next_step(report))
    return capture.get()


def test_a_part_of_a_lesson_is_not_told_as_the_whole() -> None:
    total = len(find_lesson(1).checks)
    report = Report(1, "Sessions", "lessons/lesson_01", total=total, results=[Result("test_x", "It holds")])
    part = _summary(report)
    assert f"1 of {total} checks pass, {total - 1} not run" in part
    assert "Run all of them: pytest checks/lesson_01\n" in part
    assert "Next" not in part
    assert "workbook diff" not in part
    report.target = "solutions/lesson_01"
    assert "pytest checks/lesson_01 --target solutions/lesson_01" in _summary(report)
    whole = Report(1, "Sessions", "lessons/lesson_01", total=1, results=report.results)
    assert "Next: lessons/lesson_02/README.md" in _summary(whole)
    whole.changed = True
    edited = _summary(whole)
    assert "The code was edited while the checks ran, so this run does not count." in edited
    assert "Next" not in edited
