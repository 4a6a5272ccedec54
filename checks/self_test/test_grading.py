"""What a learner sees: verdicts that teach, results on file, clear words for everything that is off."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from checks.kit import catalogue
from checks.kit.report.places import places
from checks.kit.verify import variant

ROOT = catalogue.ROOT


def pytest_run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    kept = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "PYTEST_ADDOPTS")}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=kept | environ, timeout=170)


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A copy of solution 01 to break."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "solutions" / "lesson_01", tmp_path / "lesson_01", ignore=ignored)
    return tmp_path


def test_the_unsolved_lesson_gets_verdicts_that_teach(tmp_path: Path) -> None:
    lesson = catalogue.lesson(1)
    target, _ = variant(lesson, lesson.checks_folder / "variants/wrong_usual_get_session", tmp_path)
    report, junit = tmp_path / "report.json", tmp_path / "junit.xml"
    done = pytest_run(
        "checks/lesson_01", "-k", "announced or created", "--target", str(target),
        "--report-json", str(report), "--junitxml", str(junit),
    )  # fmt: skip
    assert done.returncode == 1
    text = " ".join(done.stdout.split())
    assert "✗ Nobody is told 201 for a book while its COMMIT is still on the way to PostgreSQL" in text
    assert "What we did" in text
    assert "held on the wire: COMMIT" in text
    assert "POST /books was answered 201 while COMMIT was held" in text
    assert "Why it matters" in text
    assert "notebooks/lesson_01.ipynb, section “The timeline”" in text
    assert "workbook hint 1 test_a_book_is_announced_only_after_its_commit" in text
    assert "1 of 2 checks pass" in text
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
    assert " ".join(done.stdout.split()).count("not run; it needs: an app that starts") == 11
    assert said in done.stdout
    assert "0 of 12 checks pass, 11 not run" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "environ", "said"),
    [
        (["--target", "/no/such/folder"], {}, "there is no such folder"),
        ([], {"DATABASE_URL": "postgresql://x:y@127.0.0.1:1/z"}, "unset DATABASE_URL"),
        ([], {"WORKBOOK_POSTGRES": "oracle"}, "It may be: embedded"),
    ],
)
def test_what_is_off_gets_one_clear_message(arguments: list[str], environ: dict[str, str], said: str) -> None:
    done = pytest_run("checks/lesson_00", *arguments, **environ)
    text = done.stdout + done.stderr
    assert done.returncode not in (0, 1)
    assert said in " ".join(text.split())
    assert "Traceback" not in text


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
