"""`workbook submit`: what a learner gives to an instructor, and that the grader finds all of it."""

from __future__ import annotations

import json
import subprocess
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from checks.kit.lessons.errors import WorkbookError
from checks.kit.lessons.paths import ROOT
from checks.kit.submissions import pack as module
from checks.kit.submissions.intake.read import submissions
from checks.kit.submissions.intake.source import MAX_FILE_BYTES
from checks.kit.submissions.pack import pack
from checks.self_test.commands import workbook

NOW = datetime(2026, 11, 27, 19, 30, tzinfo=UTC)
FILES = {0: {"app/main.py": b"app = 0\n"}, 3: {"app/main.py": b"app = 3\n", "schema.sql": b"-- \xc3\xa4\n"}}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory, copied: Callable[[Path], Path]) -> Path:
    return copied(tmp_path_factory.mktemp("learner") / "bookshop")


def submit(checkout: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return workbook(checkout, "submit", *map(str, arguments), NO_COLOR="1", COLUMNS="200")


def test_the_grader_finds_what_was_packed(tmp_path: Path) -> None:
    path = pack(FILES, "Änna O'Right", tmp_path, NOW)
    assert path.name == "änna-o-right-20261127-1930.zip"
    [submission] = submissions([path], range(20))
    assert (submission.lessons, submission.notes) == (FILES, ())
    with zipfile.ZipFile(path) as archive:
        about = json.loads(archive.read("submission.json"))
    assert (about["learner"], about["packed_at"]) == ("Änna O'Right", "2026-11-27T19:30:00+00:00")
    assert list(about["lessons"]) == ["lesson_00", "lesson_03"]


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    names = [pack(FILES, "Anna", tmp_path, NOW).name for _ in range(3)]
    assert names == ["anna-20261127-1930.zip", "anna-20261127-1930-2.zip", "anna-20261127-1930-3.zip"]


@pytest.mark.parametrize("learner", ["../../etc/passwd", "", "   ", "🦊", "=cmd|' /C calc'!A0", "a/b\\c:d", "x" * 300])
def test_any_name_makes_a_file_in_the_folder(tmp_path: Path, learner: str) -> None:
    path = pack(FILES, learner, tmp_path, NOW)
    assert path.parent == tmp_path
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_file_that_is_not_whole_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = zipfile.ZipFile.writestr

    def lose(self: zipfile.ZipFile, name: str, data: bytes) -> None:
        written(self, name, data[:-1] if name.endswith("schema.sql") else data)

    monkeypatch.setattr(module.zipfile.ZipFile, "writestr", lose)
    with pytest.raises(WorkbookError, match="not whole"):
        pack(FILES, "Anna", tmp_path, NOW)
    assert not list(tmp_path.iterdir())


def test_what_was_changed_is_packed_with_what_is_wrong_in_it(checkout: Path, tmp_path: Path) -> None:
    app = checkout / "lessons" / "lesson_01" / "app"
    (app / "orders.py").write_text("def broken(:\n", encoding="utf-8")
    (app / "data.bin").write_bytes(b"x" * (MAX_FILE_BYTES + 1))
    (app / "elsewhere.py").symlink_to("/etc/passwd")
    (app / "__pycache__").mkdir(exist_ok=True)
    (app / "__pycache__" / "old.pyc").write_bytes(b"x")
    done = submit(checkout, "--name", "Anna Right", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "lesson_01" in done.stdout
    assert "lesson_00" not in done.stdout
    assert "you have not run all its checks" in done.stdout
    assert "app/orders.py, line 1: invalid syntax" in done.stdout
    assert "app/data.bin is larger than 2 MB and was left out." in done.stdout
    assert "app/elsewhere.py is a symbolic link and was left out." in done.stdout
    [path] = tmp_path.iterdir()
    assert "has the work of Anna Right: 1 of" in done.stdout
    [submission] = submissions([path], range(20))
    assert submission.lessons[1]["app/orders.py"] == b"def broken(:\n"
    assert not {"app/data.bin", "app/elsewhere.py"} & submission.lessons[1].keys()


def test_what_cannot_be_packed_is_said(checkout: Path, tmp_path: Path) -> None:
    subprocess.run(["git", "checkout", "-q", "lessons"], cwd=checkout, check=False)
    for arguments, said in (
        ((), "You have changed no lesson yet."),
        (("99",), "lesson 99"),
        (("0", "--out", tmp_path / "nowhere"), "is not a folder"),
    ):
        done = submit(checkout, "--name", "Anna", *arguments)
        assert done.returncode == 1
        assert said.lower() in done.stderr.lower()
        assert "Traceback" not in done.stderr


def test_the_usual_name_is_that_of_git(checkout: Path, tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q"], cwd=checkout, check=True)
    subprocess.run(["git", "config", "user.name", "Ben"], cwd=checkout, check=True)
    assert submit(checkout, "0", "--out", tmp_path).returncode == 0
    assert [path.name.split("-")[0] for path in tmp_path.iterdir()] == ["ben"]


def test_nothing_below_lessons_is_touched() -> None:
    before = {path: path.stat().st_mtime_ns for path in (ROOT / "lessons" / "lesson_00").rglob("*")}
    assert submit(ROOT, "0", "--name", "x", "--out", "/nowhere").returncode == 1
    assert {path: path.stat().st_mtime_ns for path in (ROOT / "lessons" / "lesson_00").rglob("*")} == before
