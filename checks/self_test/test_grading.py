"""What a learner sees: verdicts that teach, results on file, clear words for everything that is off."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest

from checks.kit.lessons.lesson import find_lesson
from checks.kit.lessons.paths import ROOT
from checks.kit.lessons.variants import find_variant, materialize
from checks.kit.report.places import places
from checks.self_test.commands import pytest_run


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A copy of solution 01 to break."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "solutions" / "lesson_01", tmp_path / "lesson_01", ignore=ignored)
    return tmp_path


def test_the_unsolved_lesson_gets_verdicts_that_teach(tmp_path: Path) -> None:
    lesson = find_lesson(1)
    target = materialize(find_variant(lesson, "wrong_usual_get_session"), tmp_path)
    report, junit = tmp_path / "report.json", tmp_path / "junit.xml"
    done = pytest_run(
        "checks/lesson_01", "-k", "announced or created", "--target", str(target),
        "--report-json", str(report), "--junitxml", str(junit),
    )  # fmt: skip
    assert done.returncode == 1
    text = " ".join(done.stdout.split())
    assert "✗ `POST /books` returns 201 only after its COMMIT has succeeded" in text
    assert "What the check did" in text
    assert "held on the wire: COMMIT" in text
    assert "POST /books returned 201 while COMMIT was held" in text
    assert "Why it matters" in text
    assert "notebooks/lesson_01.ipynb, section “A 201 can arrive before its COMMIT”" in text
    assert "workbook hint 1 test_a_book_is_announced_only_after_its_commit" in text
    assert "1 of 13 checks pass, 11 not run" in text
    assert "Traceback" not in done.stdout
    prose = [line for line in done.stdout.splitlines() if "/" not in line]  # paths stay whole
    assert max(map(len, prose)) <= 80
    [written] = json.loads(report.read_text())
    assert [result["outcome"] for result in written["results"]] == ["passed", "failed"]
    [suite] = ET.parse(junit).getroot().iter("testsuite")
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    [failure] = suite.iter("failure")
    assert "while COMMIT was held" in (failure.text or "")


def test_the_learners_own_line_is_named(mine: Path) -> None:
    books = mine / "lesson_01/app/books.py"
    books.write_text(
        books.read_text().replace("await session.get(Book, book_id)", "await session.fetch(Book, book_id)")
    )
    line = next(n for n, text in enumerate(books.read_text().splitlines(), 1) if "session.fetch" in text)
    done = pytest_run("checks/lesson_01", "-k", "created", "--target", str(mine))
    assert f"books.py:{line}" in "".join(done.stdout.split())
    assert "AttributeError" in done.stdout


@pytest.mark.parametrize(
    ("name", "source", "said"),
    [
        ("syntax error", "def broken(:\n", "SyntaxError"),
        ("half edited", "from app.nowhere import app\n", "ModuleNotFoundError"),
        ("leaves at import", "import os\nos._exit(0)\n", "ended with exit code 0"),
    ],
)
def test_an_app_that_does_not_start_is_one_red_line(mine: Path, name: str, source: str, said: str) -> None:
    (mine / "lesson_01/app/main.py").write_text(source)
    done = pytest_run("checks/lesson_01", "--target", str(mine))
    assert done.returncode == 1
    assert done.stdout.count("\n  ✗ ") == 1, done.stdout
    assert " ".join(done.stdout.split()).count("not run; it needs:") == 12
    assert said in done.stdout
    assert "0 of 13 checks pass, 12 not run" in done.stdout


def test_the_first_failure_ends_the_run_if_asked(mine: Path, tmp_path: Path) -> None:
    books = mine / "lesson_01/app/books.py"
    books.write_text(books.read_text().replace("await session.get(Book, book_id)", "None"))
    report = tmp_path / "report.json"
    done = pytest_run("checks/lesson_01", "-x", "--target", str(mine), "--report-json", str(report))
    assert done.returncode == 1, done.stdout
    assert "stopping after 1 failures" in done.stdout
    [written] = json.loads(report.read_text())
    outcomes = [result["outcome"] for result in written["results"]]
    assert outcomes[-1] == "failed"
    assert set(outcomes[:-1]) <= {"passed"}
    assert len(outcomes) < len(find_lesson(1).checks)


def test_one_check_runs_alone_and_others_are_only_listed() -> None:
    name = "test_a_created_book_can_be_read"
    done = pytest_run(f"checks/lesson_01/test_units_of_work.py::{name}", "--target", "solutions")
    assert done.returncode == 0, done.stdout
    assert "1 of 13 checks pass, 12 not run" in done.stdout
    listed = pytest_run("checks/lesson_01", "--collect-only", "-k", "created")
    assert listed.returncode == 0, listed.stdout
    assert f"<CheckItem {name}>" in listed.stdout
    assert "1/13 tests collected" in listed.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGINT to send")
def test_an_interrupted_run_keeps_what_ran(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    arguments = ["checks/lesson_01", "-p", "no:cacheprovider", "--target", "solutions", "--report-json", str(report)]
    command = [sys.executable, "-m", "pytest", *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as run:
        assert run.stdout is not None
        printed = []
        for line in run.stdout:
            printed.append(line)
            if "✓" in line and not run.poll():
                run.send_signal(signal.SIGINT)
                break
        printed += run.stdout.readlines()
    text = "".join(printed)
    assert run.returncode == pytest.ExitCode.INTERRUPTED, text
    assert "Interrupted. What ran so far is kept; run the same command again." in text
    assert "Traceback" not in text
    [written] = json.loads(report.read_text())
    assert 0 < len(written["results"]) < len(find_lesson(1).checks)
    assert {result["outcome"] for result in written["results"]} == {"passed"}


def test_an_error_of_a_check_is_no_failure_of_the_learners(copied: Callable[[Path], Path], tmp_path: Path) -> None:
    """And what needs the check is not run; tests that are no checks are run and reported as pytest does it."""
    checkout = copied(tmp_path / "checkout")
    (checkout / "checks/lesson_00/test_start_and_stop.py").write_text(BROKEN_CHECKS)
    plain = checkout / "checks/plain/test_plain.py"
    plain.parent.mkdir()
    plain.write_text("def test_plain_red():\n    assert 1 + 1 == 3\n\n\nasync def test_plain_green():\n    pass\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "checks/lesson_00", "checks/plain",
         "--junitxml", "junit.xml", "--report-json", "report.json"],
        cwd=checkout, capture_output=True, text=True,
    )  # fmt: skip
    text = " ".join(done.stdout.split())
    assert done.returncode == 1, done.stdout
    assert "! It divides by zero" in text
    assert "The check ended with an error of its own: ZeroDivisionError: division by zero" in text
    assert "This is a fault of the check or of this machine, not of your code. Please report it" in text
    assert "– It needs the first (not run; it needs: It divides by zero)" in text
    assert "✓ It passes" in text
    assert "1 of 8 checks pass, 5 not run, 2 ended with an error" in text
    assert "Open: checks/lesson_00/test_start_and_stop.py: the check failed, not your code" in text
    assert "assert (1 + 1) == 3" in text
    assert "1 failed, 1 passed" in text
    [report] = json.loads((checkout / "report.json").read_text())
    assert [result["outcome"] for result in report["results"]] == ["error", "blocked", "passed", "error"]
    progress = json.loads((checkout / ".workbook/progress.json").read_text())
    assert progress["lesson_00"]["recent"] == {"test_dependent": "blocked", "test_fine": "passed"}
    [suite] = ET.parse(checkout / "junit.xml").getroot().iter("testsuite")
    counts = [suite.get(name) for name in ("tests", "failures", "errors", "skipped")]
    assert counts == ["6", "1", "2", "1"]
    error, skipped = suite.iter("error")
    assert "not today" in (skipped.get("message") or "")
    assert "ZeroDivisionError" in (error.get("message") or "")
    assert "ZeroDivisionError" in (error.text or "")
    assert "Traceback" not in (error.text or "")


BROKEN_CHECKS = '''
import pytest


async def test_broken(wire):
    """It divides by zero"""
    1 / 0


@pytest.mark.needs("test_broken")
async def test_dependent(wire):
    """It needs the first"""


async def test_fine(wire):
    """It passes"""


async def test_skipping(wire):
    """It is no test of pytest's own"""
    pytest.skip("not today")
'''


@pytest.mark.parametrize(
    ("arguments", "environ", "said"),
    [
        (["--target", "/no/such/folder"], {}, "there is no such folder"),
        ([], {"DATABASE_URL": "postgresql://x:y@127.0.0.1:1/z"}, "unset DATABASE_URL"),
        ([], {"WORKBOOK_POSTGRES": "oracle"}, "It may be: embedded"),
        (["-k", "wakes"], {}, "No check matches -k 'wakes'"),
        (["-m", "serial"], {}, "There are: test_it_starts_and_answers"),
    ],
)
def test_what_is_off_gets_one_clear_message(arguments: list[str], environ: dict[str, str], said: str) -> None:
    done = pytest_run("checks/lesson_00", *arguments, **environ)
    text = done.stdout + done.stderr
    assert done.returncode not in (0, 1)
    assert said in " ".join(text.split())
    assert "Traceback" not in text


@pytest.mark.slow
def test_the_spawned_way_grades_the_same() -> None:
    done = pytest_run("checks/lesson_00", "--target", "solutions", WORKBOOK_SPAWN="1")
    assert done.returncode == 0, done.stdout
    assert "8 of 8 checks pass" in done.stdout


def test_two_runs_at_once_do_not_meet() -> None:
    command = [sys.executable, "-m", "pytest", "checks/lesson_00", "--target", "solutions", "-p", "no:cacheprovider"]
    runs = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for run in runs:
        printed, _ = run.communicate(timeout=170)
        assert "8 of 8 checks pass" in printed


def test_grading_writes_nothing_below_the_target(mine: Path) -> None:
    before = sorted(path for path in mine.rglob("*") if "__pycache__" not in path.parts)
    assert pytest_run("checks/lesson_01", "-k", "created", "--target", str(mine)).returncode == 0
    assert sorted(mine.rglob("*")) == before


def test_the_last_own_line_of_each_traceback_is_found(tmp_path: Path) -> None:
    log = f"""INFO: fine
Traceback (most recent call last):
  File "{tmp_path}/app/main.py", line 3, in outer
    inner()
  File "{tmp_path}/app/deep.py", line 9, in inner
    await driver()
  File "/usr/lib/driver.py", line 70, in driver
    raise ValueError
asyncpg.exceptions.UniqueViolationError: duplicate key
"""
    [place] = places(log, tmp_path, tmp_path)
    assert (place.path, place.line, place.function) == ("app/deep.py", 9, "inner")
    assert place.error.startswith("asyncpg.exceptions.UniqueViolationError")
