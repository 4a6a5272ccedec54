"""`workbook grade --watch`: the page of a class, and noticing that something arrived."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from checks.kit.cli.folder_changes import changed, snapshot
from checks.kit.lessons.lesson import find_lesson
from checks.kit.report.model import Finding, Outcome, Report, Result
from checks.kit.submissions.model import Grade, Gradebook, LearnerGrades, Submission
from checks.kit.view.regions import Regions
from checks.kit.view.room import Room
from checks.self_test.commands import ENVIRON, WORKBOOK, read_until

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\x1b[31m\u202e"
LESSON = find_lesson(1)


def grade(passed: int, happened: str = "It broke.") -> Grade:
    """A grade of lesson 01 in which the first checks pass and the others fail."""
    report = Report(LESSON.number, LESSON.title, "app", "")
    for number, entry in enumerate(LESSON.checks):
        outcome = Outcome.PASSED if number < passed else Outcome.FAILED
        finding = None if number < passed else Finding(happened, happened)
        report.results.append(Result(entry.name, LESSON.titles[entry.name], outcome, finding))
    return Grade(report, 1.0)


def learner(name: str, given: Grade | None = None) -> LearnerGrades:
    """Somebody who submitted lesson 01; without a grade, it waits for one."""
    submission = Submission(name, name, {LESSON.number: {}})
    if given is None:
        return LearnerGrades(submission, waiting=frozenset({LESSON.number}))
    return LearnerGrades(submission, {LESSON.number: given})


def room_of(*learners: LearnerGrades) -> tuple[Room, Regions]:
    regions = Regions()
    room = Room(regions, [1, 2])
    room.begins(book(*learners))
    return room, regions


def book(*learners: LearnerGrades) -> Gradebook:
    return Gradebook([LESSON], "", "", "", list(learners))


def rows(regions: Regions) -> list[str]:
    """The rows, sorted by the learner's name."""
    return sorted(html for name, html in regions._html.items() if name.startswith("learner:"))


def test_what_a_submission_says_is_shown_as_text() -> None:
    given = grade(3, HOSTILE)
    given.stopped = HOSTILE
    room, regions = room_of(learner(HOSTILE, given))
    room.graded(0, learner(HOSTILE, given), LESSON.number)
    room.notice(HOSTILE)
    room.ended(book(learner(HOSTILE, given)))
    for html in regions._html.values():
        assert not any(text in html for text in ("<script", "<img", "\x1b", "\u202e"))
    assert "&lt;script" in rows(regions)[0]


def test_a_lesson_that_is_graded_again_shows_its_last_grade_until_then() -> None:
    room, regions = room_of(learner("ada"))
    assert "is graded soon" in rows(regions)[0]
    assert "1 to go" in regions._html["head"]
    room.graded(0, learner("ada", grade(3)), LESSON.number)
    assert f"3 of {len(LESSON.checks)}" in rows(regions)[0]
    assert 'class="old"' not in rows(regions)[0]
    assert "waiting for changes" not in regions._html["head"]
    room.ended(book(learner("ada", grade(3))))
    assert "waiting for changes" in regions._html["head"]
    assert "1 of 1 fail" in regions._html["hardest"]
    room.begins(book(learner("ada"), learner("bo")))
    assert [f"3 of {len(LESSON.checks)}" in row for row in rows(regions)] == [True, False]
    assert 'class="old"' in rows(regions)[0]
    room.graded(0, learner("ada", grade(len(LESSON.checks))), LESSON.number)
    assert "All checks pass." in rows(regions)[0]
    assert "1 of 2 lessons pass" in regions._html["head"]


def test_lessons_that_nobody_submitted_are_left_out() -> None:
    _, regions = room_of(learner("ada", grade(3)))
    assert re.findall(r">(\d\d)<", regions._html["class"]) == ["01"]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("checks.kit.cli.folder_changes.POLL_SECONDS", 0.01)
    yield


@pytest.mark.parametrize("how", ["made", "written", "deleted", "touched"])
async def test_a_change_is_noticed(quick: None, tmp_path: Path, how: str) -> None:
    file = tmp_path / "ada" / "app" / "main.py"
    file.parent.mkdir(parents=True)
    file.write_text("1")
    before = snapshot([tmp_path])
    waiting = asyncio.create_task(changed([tmp_path], before))
    if how == "made":
        (tmp_path / "bo.zip").write_bytes(b"PK")
    elif how == "written":
        file.write_text("22")
    elif how == "deleted":
        shutil.rmtree(tmp_path / "ada")
    else:
        os.utime(file, ns=(1, 1))
    async with asyncio.timeout(60):
        assert await waiting == snapshot([tmp_path]) != before


async def test_a_file_that_grows_is_not_read_before_it_is_whole(quick: None, tmp_path: Path) -> None:
    file = tmp_path / "ada.zip"
    looks = 0

    def growing(paths: object) -> dict[str, tuple[int, int]]:
        nonlocal looks
        looks += 1
        if looks <= 3:
            file.write_bytes(b"x" * looks)
        return snapshot([tmp_path])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("checks.kit.cli.folder_changes.snapshot", growing)
        async with asyncio.timeout(60):
            await changed([tmp_path], {})
    assert looks == 4


def test_caches_and_repositories_are_not_looked_at(tmp_path: Path) -> None:
    for name in (".git", "__pycache__", ".venv"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("")
    assert snapshot([tmp_path]) == {}


@pytest.mark.slow
async def test_a_class_is_graded_as_it_arrives(tmp_path: Path) -> None:
    submissions, out = tmp_path / "submissions", tmp_path / "out"
    hand_in(submissions / "ada", "lessons")
    process = await asyncio.create_subprocess_exec(
        *WORKBOOK, "grade", str(submissions), "--lessons", "0", "--out", str(out), "--watch", "--no-browser",
        stdout=asyncio.subprocess.PIPE, env=ENVIRON | {"PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    try:
        [address] = re.findall(r"http://127\S+", await read_until(process.stdout, "/\n"))
        async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
            assert "To the class" in (await client.get(address)).text
        assert "0 of 1 lesson pass" in await read_until(process.stdout, "Waiting for changes.")
        hand_in(submissions / "bo", "solutions")
        printed = await read_until(process.stdout, "Waiting for changes.")
        assert "2 submissions, 1 lesson to grade; 1 have not changed" in printed
        assert "1 of 2 lessons passes" in printed
        shutil.rmtree(submissions)
        assert "submissions" in await read_until(process.stdout, "\n")
        hand_in(submissions / "ada", "solutions")
        assert "1 of 1 lesson passes" in await read_until(process.stdout, "Waiting for changes.")
    finally:
        process.send_signal(signal.SIGINT)
        await process.stdout.read()
        assert await process.wait() == 0
    assert (out / "feedback" / "ada.html").is_file()


def hand_in(folder: Path, of: str) -> None:
    """Copies lesson 00 as it was handed out, with a comment, or solved."""
    shutil.copytree(find_lesson(0).folder, folder / "lesson_00")
    if of == "solutions":
        shutil.copytree(find_lesson(0).solution, folder / "lesson_00", dirs_exist_ok=True)
    main = folder / "lesson_00" / "app" / "main.py"
    main.write_text(f"# by {folder.name}\n" + main.read_text())
