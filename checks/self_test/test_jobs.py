"""Jobs: which files decide whether two gradings can be compared, and which submissions share a job."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from checks.kit.lessons.lesson import find_lesson
from checks.kit.lessons.paths import ROOT
from checks.kit.report.model import Report
from checks.kit.submissions.jobs import (
    RunSettings,
    files_of,
    fingerprint,
    from_dict,
    make_job,
    make_jobs,
    to_dict,
    without_untouched,
)
from checks.kit.submissions.model import Grade, Submission

SETTINGS = RunSettings("0123456789ab", True, 300)

MATTERS = (
    "pyproject.toml",
    "lessons/lesson_00/app/main.py",
    "lessons/lesson_01/lesson.toml",
    "checks/lesson_00/test_start.py",
    "checks/lesson_06/forgery.py",
    "checks/kit/__init__.py",
    "checks/kit/grading/run_check.py",
    "checks/kit/postgres/server.py",
    "checks/kit/report/model.py",
    "checks/kit/service/inside/child.py",
    "checks/kit/testbed/shop.py",
    "checks/kit/wire/connection.py",
    "checks/kit/lessons/lesson.py",
)

MAKES_NO_DIFFERENCE = (
    "README.md",
    "CHANGELOG.md",
    "solutions/lesson_00/app/main.py",
    "notebooks/lesson_00.ipynb",
    "checks/README.md",
    "checks/self_test/test_jobs.py",
    "checks/lesson_00/variants/wrong_start/app/main.py",
    "checks/lesson_00/variants/wrong_start.patch",
    "checks/lesson_00/handed_out.patch",
    "checks/lesson_00/__pycache__/test_start.cpython-311.pyc",
    "checks/kit/notebook.py",
    "checks/kit/cli/grade.py",
    "checks/kit/view/static/view.css",
    "checks/kit/submissions/results/page.html",
    "checks/kit/authoring/template/lesson.toml",
    "checks/kit/wire/__pycache__/connection.cpython-311.pyc",
)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with all of these files."""
    for name in (*MATTERS, *MAKES_NO_DIFFERENCE):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("before", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("name", MATTERS)
def test_a_file_that_can_change_a_verdict_changes_the_fingerprint(name: str, checkout: Path) -> None:
    before = fingerprint(checkout)
    (checkout / name).write_text("after", encoding="utf-8")
    assert fingerprint(checkout) != before


@pytest.mark.parametrize("name", MAKES_NO_DIFFERENCE)
def test_a_file_that_cannot_does_not(name: str, checkout: Path) -> None:
    before = fingerprint(checkout)
    (checkout / name).write_text("after", encoding="utf-8")
    assert fingerprint(checkout) == before


def test_every_room_of_the_kit_is_known_to_matter_or_not() -> None:
    """A new folder in checks/kit has to be entered above."""
    rooms = {path.name for path in (ROOT / "checks/kit").iterdir() if path.name != "__pycache__"}
    known = {name.split("/")[2] for name in (*MATTERS, *MAKES_NO_DIFFERENCE) if name.startswith("checks/kit/")}
    assert rooms == known


def test_the_same_files_are_one_job_and_other_settings_another() -> None:
    lesson = find_lesson(0)
    files = files_of(lesson.solution)
    submissions = [Submission(name, name, {0: files}) for name in ("Ada", "Bea")]
    jobs = make_jobs([*submissions, Submission("Cleo", "Cleo", {0: {**files, "NOTES.txt": b""}})], SETTINGS)
    assert [*jobs] == [(0, 0), (1, 0), (2, 0)]
    assert jobs[0, 0] == jobs[1, 0] != jobs[2, 0]
    others = (RunSettings("ba9876543210", True, 300), RunSettings(SETTINGS.kit, False, 300))
    keys = {make_job(lesson, files, settings).key for settings in (SETTINGS, *others)}
    assert len(keys) == 3


def test_a_grade_on_disk_knows_when_it_was_given_and_an_old_one_does_not() -> None:
    grade = Grade(Report(0, "", ""), 3.5, at=datetime(2026, 11, 27, 23, 5, tzinfo=UTC))
    stored = json.loads(json.dumps(to_dict(grade)))
    assert from_dict(stored) == grade
    del stored["at"]
    assert from_dict(stored) == Grade(Report(0, "", ""), 3.5)


def test_line_ends_do_not_make_an_untouched_lesson_work() -> None:
    windows = {path: content.replace(b"\n", b"\r\n") for path, content in files_of(find_lesson(0).folder).items()}
    assert without_untouched(Submission("Ada", "Ada", {0: windows})).lessons == {}


def test_an_untouched_lesson_is_no_work_and_a_missing_file_is_noted() -> None:
    untouched, changed = files_of(find_lesson(0).folder), dict(files_of(find_lesson(1).folder))
    del changed["app/main.py"]
    submission = without_untouched(Submission("Ada", "Ada", {0: untouched, 1: changed}))
    assert submission.lessons == {1: changed}
    assert submission.notes == (
        "Unchanged, so counted as not submitted: lesson_00.",
        "lesson_01 lacks app/main.py of the lesson as handed out.",
    )
