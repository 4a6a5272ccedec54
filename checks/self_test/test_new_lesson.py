"""`workbook dev new-lesson`, in a checkout of its own: what it makes is a lesson, and says what is still to do."""

from __future__ import annotations

import json
import subprocess
import tomllib
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import nbformat
import pytest

from checks.kit.lessons.lesson import Lesson, all_lessons
from checks.self_test.commands import workbook

NEXT = all_lessons()[-1].number + 1
NAME = f"lesson_{NEXT:02}"


def dev(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return workbook(checkout, "dev", *arguments, COLUMNS="200", NO_COLOR="1")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory, copied: Callable[[Path], Path]) -> Path:
    checkout = copied(tmp_path_factory.mktemp("authors") / "bookshop")
    done = dev(checkout, "new-lesson", str(NEXT), "Background jobs")
    assert done.returncode == 0, done.stderr
    assert f"Next: uv run workbook dev verify {NEXT}" in done.stdout
    return checkout


def test_the_new_lesson_fails_its_solution_passes_and_verify_lists_the_rest(checkout: Path) -> None:
    done = dev(checkout, "verify", str(NEXT))
    assert "4 apps graded" in done.stdout
    assert done.stdout.count("✓") == 4, done.stdout  # the lesson, its solution and both variants
    to_do = [line.strip(" ✗") for line in done.stdout.splitlines() if line.startswith("  ✗")]
    assert done.returncode == 1
    counts = [line for line in to_do if " TODO: " not in line]
    assert [line.split(";")[0] for line in counts] == [
        f"checks/{NAME}/variants: 1 right_* of at least 3",
        f"checks/{NAME}/variants: 1 wrong_* of at least 5",
        f"checks/{NAME}/handed_out.patch does not hold lessons/{NAME} as it is",
    ]
    for place in (
        "README.md",
        "lesson.toml",
        "hints.toml",
        "test_background_jobs.py",
        ".patch",
        ".ipynb",
        "example.py",
    ):
        assert any(place in line and "TODO" in line for line in to_do), place


def test_the_manifest_explains_every_key(checkout: Path) -> None:
    text = (checkout / "lessons" / NAME / "lesson.toml").read_text(encoding="utf-8")
    known = {field.name for field in fields(Lesson)} - {"checks", "endpoints", "outside"}
    lines = text.splitlines()
    for key in known:
        assert any(line.lstrip("# ").startswith((f"{key} = ", f"[{key}]")) for line in lines), key
    assert "[[endpoint]]" in text and "[[outside]]" in text
    assert tomllib.loads(text)["title"] == "Background jobs"
    assert tomllib.loads(text)["env"] == all_lessons()[-1].env


@pytest.mark.slow
def test_the_notebook_is_valid_and_has_the_section_of_the_check(checkout: Path) -> None:
    path = checkout / "notebooks" / f"{NAME}.ipynb"
    nbformat.validate(json.loads(path.read_text(encoding="utf-8")))
    assert "## See it break" in path.read_text(encoding="utf-8")
    done = dev(checkout, "notebook", str(NEXT))
    assert done.returncode == 0, done.stderr
    text = path.read_text(encoding="utf-8")
    assert "200 {'books': 10}" in text and "{'books': 12} and 1 row crossed the wire" in text


@pytest.mark.parametrize(
    ("number", "title", "says"),
    [
        (
            3,
            "Again",
            f'Lesson 3 exists already. The next one is {NEXT + 1}: uv run workbook dev new-lesson {NEXT + 1} "',
        ),
        (NEXT + 3, "Far", f"Lesson {NEXT + 3} would leave a gap: the last one is {NEXT}. The next one is {NEXT + 1}"),
        (NEXT + 1, 'A "title"', "A title is a few words"),
    ],
)
def test_it_refuses_a_number_that_is_taken_or_leaves_a_gap(checkout: Path, number: int, title: str, says: str) -> None:
    done = dev(checkout, "new-lesson", str(number), title)
    assert done.returncode != 0
    assert says in done.stderr
    assert not (checkout / "lessons" / f"lesson_{NEXT + 1:02}").exists()


def test_it_overwrites_nothing(checkout: Path) -> None:
    mine = checkout / "solutions" / f"lesson_{NEXT + 1:02}" / "mine.py"
    mine.parent.mkdir()
    mine.write_text("mine")
    done = dev(checkout, "new-lesson", str(NEXT + 1), "More")
    assert f"solutions/{mine.parent.name} exists already" in done.stderr
    assert mine.read_text() == "mine"
    assert not (checkout / "lessons" / mine.parent.name).exists()
    mine.unlink()
    mine.parent.rmdir()


def test_a_lesson_is_written_down_as_it_is_handed_out(checkout: Path) -> None:
    stale = dev(checkout, "handed-out", str(NEXT), "--check")
    assert stale.returncode == 1
    assert f"uv run workbook dev handed-out {NEXT}" in stale.stdout
    assert f"wrote checks/{NAME}/handed_out.patch" in dev(checkout, "handed-out").stdout
    assert dev(checkout, "handed-out", "--check").returncode == 0
