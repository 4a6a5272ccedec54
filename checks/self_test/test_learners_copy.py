"""`workbook class`: what an instructor gives to learners has no answers in it, and works."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from checks.kit.lessons.lesson import all_lessons, find_lesson
from checks.kit.lessons.original import handed_out
from checks.kit.lessons.patches import read_tree
from checks.kit.lessons.paths import ROOT
from checks.kit.submissions import learners_copy
from checks.self_test.commands import workbook


@pytest.fixture(scope="module")
def learners(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of lessons 00 to 02."""
    folder = tmp_path_factory.mktemp("class") / "copy"
    learners_copy.make(folder, [find_lesson(number) for number in range(3)])
    return folder


def test_the_copy_has_no_answers(learners: Path) -> None:
    here = {path.relative_to(learners).as_posix() for path in learners.rglob("*") if path.is_file()}
    assert {"README.md", "pyproject.toml", "checks/kit/notebook.py", "lessons/lesson_02/app/main.py"} <= here
    for answer in ("solutions/", "/variants/", "self_test", "CHANGELOG", "lesson_03"):
        assert not [path for path in here if answer in path and not path.startswith("checks/kit/")]
    last = read_tree(ROOT / "solutions/lesson_02")
    handed = handed_out(find_lesson(2))
    changed = {content for path, content in last.items() if handed.get(path) != content}
    assert changed
    assert not changed & {(learners / path).read_bytes() for path in here}


def test_its_notebooks_have_all_cells_and_no_outputs(learners: Path) -> None:
    for lesson in all_lessons()[:3]:
        theirs, ours = (
            json.loads((root / f"notebooks/{lesson.name}.ipynb").read_text(encoding="utf-8"))["cells"]
            for root in (learners, ROOT)
        )
        assert [cell["source"] for cell in theirs] == [cell["source"] for cell in ours]
        assert any(cell.get("outputs") for cell in ours)
        assert not any(cell.get("outputs") or cell.get("execution_count") for cell in theirs)


def test_the_copy_grades_and_says_what_it_cannot_do(learners: Path) -> None:
    shown = workbook(learners, NO_COLOR="1").stdout
    assert "02  expire_on_commit" in shown
    assert "Eager loading" not in shown
    assert "no solutions/lesson_00" in workbook(learners, "diff", "0", "--peek").stderr
    assert "one for learners already" in workbook(learners, "class", "elsewhere").stderr


def test_a_lesson_that_was_changed_here_is_as_it_was_handed_out(tmp_path: Path, copied: Callable[[Path], Path]) -> None:
    checkout, folder = copied(tmp_path / "bookshop"), tmp_path / "for learners"
    shutil.copytree(checkout / "solutions/lesson_00/app", checkout / "lessons/lesson_00/app", dirs_exist_ok=True)
    (checkout / "lessons/lesson_00/mine.py").write_text("mine = 1\n")
    shutil.rmtree(checkout / ".git")
    (checkout / ".venv").mkdir()
    (checkout / ".venv/secret").touch()
    done = workbook(checkout, "class", str(folder), "--lessons", "0", COLUMNS="200", NO_COLOR="1")
    assert done.returncode == 0, done.stderr
    assert f"{folder} has 1 of {len(all_lessons())} lessons" in done.stdout
    assert read_tree(folder / "lessons/lesson_00") == handed_out(find_lesson(0))
    assert not (folder / ".venv").exists()
    before = sorted(tmp_path.iterdir())
    again = workbook(checkout, "class", str(folder))
    assert (again.returncode, "is there already" in again.stderr) == (1, True)
    assert "lies in this workbook" in workbook(checkout, "class", "copy").stderr
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("uv") is None, reason="uv is not installed")
def test_it_is_installed_from_a_cache_without_a_network(learners: Path) -> None:
    """As checks/README.md says of a room without one; what `uv sync` of this checkout downloaded is the cache."""
    alone = ["unshare", "--net"]
    if shutil.which("unshare") is None or subprocess.run([*alone, "true"], capture_output=True).returncode:
        alone = []  # only uv itself keeps off the network then
    environ = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "UV_COMPILE_BYTECODE")}
    command = [*alone, "uv", "sync", "--quiet", "--python", sys.executable]
    done = subprocess.run(command, cwd=learners, env=environ | {"UV_OFFLINE": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shown = subprocess.run([learners / ".venv/bin/workbook", "--help"], cwd=learners, capture_output=True, text=True)
    assert "fix an inherited service" in shown.stdout, shown.stderr


def test_nothing_is_left_of_a_copy_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: Path, copy: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copy", full)
    with pytest.raises(OSError, match="No space"):
        learners_copy.make(tmp_path / "copy", [find_lesson(0)])
    assert not list(tmp_path.iterdir())
