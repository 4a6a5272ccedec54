"""Command lines, folders and terminals that are not the usual ones."""

from __future__ import annotations

import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest

from checks.kit.grading.report_file import write_report
from checks.kit.lessons.errors import WorkbookError
from checks.kit.lessons.lesson import find_lesson
from checks.kit.lessons.paths import ROOT
from checks.kit.lessons.targets import checks_command
from checks.kit.report.terminal import console
from checks.self_test.commands import ENVIRON, pytest_run, workbook


@pytest.mark.parametrize("encoding", ["ascii", pytest.param("cp1252", marks=pytest.mark.slow)])
def test_the_map_is_printed_in_any_encoding(encoding: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from checks.kit.cli import main; main()"],
        cwd=ROOT, capture_output=True, encoding=encoding, env=ENVIRON | {"PYTHONIOENCODING": encoding},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Start here" in done.stdout
    assert "next 0" in done.stdout, "words in place of symbols that the encoding does not have"


@pytest.mark.slow
def test_verdicts_are_printed_in_any_encoding() -> None:
    done = pytest_run("checks/lesson_00", "-k", "password", "--target", "solutions", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed: The password in `DATABASE_URL`" in done.stdout
    assert "Lesson 00 - 1 of 8 checks pass" in done.stdout


def test_a_terminal_without_columns_is_printed_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "0")
    out = console(StringIO())
    out.print("Start here")
    assert out.file.getvalue() == "Start here\n"  # type: ignore[attr-defined]


def test_pytest_in_a_lessons_own_folder_says_where_its_checks_are() -> None:
    done = pytest_run(checkout=ROOT / "lessons/lesson_01/app")
    assert done.returncode == pytest.ExitCode.NO_TESTS_COLLECTED
    assert "There are no tests in a lesson's own folder. Its checks: pytest ../../../checks/lesson_01\n" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "folder", "command"),
    [
        (["lessons/lesson_01"], ".", "pytest checks/lesson_01"),
        (["lessons/lesson_01/app/main.py::test_x"], ".", "pytest checks/lesson_01"),
        (["solutions/lesson_01/app"], ".", "pytest checks/lesson_01 --target solutions"),
        ([], "lessons/lesson_01", "pytest ../../checks/lesson_01"),
        ([], ".", ""),
        (["checks/lesson_01", "/tmp", "lessons"], ".", ""),
    ],
)
def test_the_command_that_is_meant_by_a_lessons_folder(arguments: list[str], folder: str, command: str) -> None:
    assert checks_command(arguments, ROOT / folder) == command


def test_a_lesson_can_be_named_by_number_name_and_folder() -> None:
    assert {find_lesson(name).number for name in (1, "1", "01", "lesson_01", "lessons/lesson_01/")} == {1}
    with pytest.raises(WorkbookError, match="There is no lesson x"):
        find_lesson("x")
    assert "There is no lesson x. Lessons: 0, 1" in workbook(ROOT, "hint", "x").stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--at-once", "0"], "at least one check must run at a time"),
        (["-p", "no:terminal"], "Leave out -p no:terminal"),
        pytest.param(["--report-json", "/no/such/folder/x.json"], "there is no such folder", marks=pytest.mark.slow),
        pytest.param(["--setup-plan"], "To list the checks: pytest checks/lesson_00", marks=pytest.mark.slow),
    ],
)
def test_an_option_that_does_not_fit_gets_one_sentence(arguments: list[str], said: str) -> None:
    done = pytest_run("checks/lesson_00", *arguments)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert said in " ".join(done.stderr.split())
    assert "INTERNALERROR" not in done.stdout + done.stderr


def test_a_port_that_does_not_exist_is_refused() -> None:
    done = workbook(ROOT, "serve", "0", "--port", "99999")
    assert done.returncode == 2
    assert "65535" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_report_that_cannot_be_written_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not write_report(str(tmp_path), [])
    assert capsys.readouterr().err == f"--report-json {tmp_path} could not be written: Is a directory.\n"
    assert write_report(str(tmp_path / "report.json"), [])
