"""Copies are noted for the instructor although somebody changed names and comments; other fixes are not."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path

import pytest

from checks.kit.lessons.lesson import find_lesson
from checks.kit.lessons.variants import materialize, variants
from checks.kit.submissions.grade_cache import GradeCache
from checks.kit.submissions.grading_run import GradingRun
from checks.kit.submissions.jobs import RunSettings, files_of, handed_out_files
from checks.kit.submissions.model import Files, Submission
from checks.kit.submissions.similarity import ALIKE, MIN_RUNS, alike, own_runs, share

SETTINGS = RunSettings("0123456789ab", True, 300)


def solution(number: int) -> dict[str, bytes]:
    return dict(files_of(find_lesson(number).solution))


def disguised(files: Files) -> dict[str, bytes]:
    """A copy with other names, comments and line ends."""
    changed = {}
    for path, content in files.items():
        text = content.decode()
        if path.endswith(".py"):
            text = re.sub(r"\b(engine|session|settings)\b", r"my_\1", text)
            text = text.replace("\n\n", "\n\n# Mine.\n").replace("\n", "\r\n")
        changed[path] = text.encode()
    return changed


def noted(tmp_path: Path, **work: Files) -> dict[str, tuple[str, ...]]:
    """What the instructor is told of these submissions of lesson 00."""
    run = GradingRun(
        [Submission(name, name, {0: files}) for name, files in work.items()], SETTINGS, GradeCache(tmp_path)
    )
    run.plan()
    return {submission.learner: submission.for_instructor for submission in run.submissions}


def test_a_disguised_copy_is_noted_and_so_is_one_of_the_solution(tmp_path: Path) -> None:
    files = solution(0)
    told = noted(tmp_path, Ada=files, Bea=disguised(files), Cleo=handed_out_files(0) | {"app/x.py": b"x = 1\n"})
    assert told == {
        "Ada": ("lesson_00 has the same files as solutions/lesson_00.", "lesson_00 has nearly the code of Bea (100%)."),
        "Bea": ("lesson_00 has nearly the code of solutions/lesson_00 (100%), Ada (100%).",),
        "Cleo": (),
    }


def test_what_is_as_handed_out_makes_nobody_alike() -> None:
    untouched = handed_out_files(1)
    assert own_runs(disguised(untouched), untouched) == frozenset()
    assert share(frozenset(), frozenset()) == 0


def test_short_work_is_alike_because_it_is_right() -> None:
    short, long = (frozenset(range(length)) for length in (MIN_RUNS - 1, MIN_RUNS))
    assert list(alike({"Ada": short, "Bea": short})) == []
    assert list(alike({"Bea": long, "Ada": long, "Cleo": frozenset(range(7, 999))})) == [("Bea", "Ada", 1.0)]


@pytest.mark.parametrize("names", [("right_asyncpg_pool", "right_plain_environ", "right_sync_in_threads")])
def test_other_fixes_are_not_alike(names: tuple[str, ...], tmp_path: Path) -> None:
    lesson = find_lesson(0)
    runs = [own_runs(solution(0), handed_out_files(0))]
    for variant in variants(lesson):
        if variant.name in names:
            materialize(variant, tmp_path / variant.name)
            [folder] = (tmp_path / variant.name).rglob("lesson_00")
            runs.append(own_runs(files_of(folder), handed_out_files(0)))
    assert len(runs) == 4
    assert max(share(one, other) for one, other in combinations(runs, 2)) < ALIKE


@pytest.mark.parametrize("content", [b"def f(:\n  '''", b"\xff\xfe\x00", b"(" * 90_000, b"x = 1\n" * 400_000])
def test_whatever_somebody_hands_in_is_compared_without_a_word(content: bytes, tmp_path: Path) -> None:
    files = {**solution(0), "app/main.py": content}
    assert set(noted(tmp_path, Ada=files)) == {"Ada"}
