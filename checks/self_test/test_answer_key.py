"""`workbook key`: every wrong fix is under a check that fails on it, and the solution is whole."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from checks.kit.lessons.answer_key import answer_key
from checks.kit.lessons.lesson import Lesson, all_lessons, find_lesson
from checks.kit.lessons.original import handed_out
from checks.kit.lessons.patches import apply, read_tree
from checks.kit.lessons.variants import variants
from checks.self_test.commands import workbook


@pytest.mark.parametrize("lesson", all_lessons(), ids=lambda lesson: lesson.name)
def test_every_fix_is_there_under_a_check_that_fails_on_it(lesson: Lesson) -> None:
    key = answer_key(lesson)
    sections = dict(re.findall(r"\n### (\d+)\. [^\n]*\n(.*?)(?=\n##)", key, re.DOTALL))
    assert list(sections) == [str(number) for number in range(1, len(lesson.checks) + 1)]
    for variant in variants(lesson):
        if variant.fails:
            under = {
                lesson.checks[int(number) - 1].name for number, text in sections.items() if f"`{variant.name}`" in text
            }
            assert under
            assert under <= variant.fails
        else:
            assert f"- {variant.about} (`{variant.name}`)" in key.partition("## Other right fixes")[2]


def test_its_patch_makes_the_solution() -> None:
    lesson = find_lesson(2)
    patch = answer_key(lesson).partition("```diff\n")[2].removesuffix("```\n").encode()
    assert apply(patch, handed_out(lesson), "key") == read_tree(lesson.solution)


def test_it_is_printed_and_a_copy_for_learners_has_none(tmp_path: Path, copied: Callable[[Path], Path]) -> None:
    checkout = copied(tmp_path / "bookshop")
    assert workbook(checkout, "key", "2").stdout == answer_key(find_lesson(2))
    for variant in (checkout / "checks/lesson_02/variants").iterdir():
        variant.unlink()
    said = workbook(checkout, "key", "2")
    assert (said.returncode, said.stdout) == (1, "")
    assert "made from checks/lesson_02/variants, which is not in this copy" in said.stderr
