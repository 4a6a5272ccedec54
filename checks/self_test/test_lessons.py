"""Every lesson keeps its promises: it fails as declared, its solution passes, every variant is judged right."""

from __future__ import annotations

import math
import os
import random
import subprocess
from collections.abc import Callable, Sequence

import pytest

from checks.kit.authoring import verify
from checks.kit.authoring.cases import AS_HANDED_OUT, SOLUTION, Case
from checks.kit.authoring.paper import to_do
from checks.kit.lessons.lesson import Lesson, all_lessons
from checks.kit.lessons.original import handed_out
from checks.kit.lessons.patches import read_tree
from checks.kit.lessons.paths import ROOT
from checks.kit.lessons.variants import variants

each_lesson = pytest.mark.parametrize("lesson", all_lessons(), ids=lambda lesson: lesson.name)


def lesson_and_solution(lesson: Lesson) -> list[str]:
    # one at a time: other work goes on meanwhile
    return broken_promises(lesson, lambda case: case.label in (AS_HANDED_OUT, SOLUTION), jobs=1)


def broken_promises(lesson: Lesson, holds: Callable[[Case], bool], jobs: int) -> list[str]:
    """What is wrong with the cases for which `holds` is true, each with the end of what its grader printed."""
    # quick: that a wrong variant fails no other check is looked at by `workbook dev verify` when something changes
    outcomes = verify.verify([lesson], jobs, holds=holds, quick=True)
    assert outcomes, f"{lesson.name} has no such case"
    return [f"{outcome.case.label}: {text}\n{outcome.log[-4000:]}" for outcome in outcomes for text in outcome.wrong]


@each_lesson
def test_a_lesson_is_whole_on_paper(lesson: Lesson) -> None:
    assert to_do(lesson) == []


@each_lesson
def test_what_reset_restores_is_the_lesson(lesson: Lesson) -> None:
    assert handed_out(lesson) == read_tree(lesson.folder)


@each_lesson
@pytest.mark.background(job=lesson_and_solution)
def test_a_lesson_fails_as_declared_and_its_solution_passes(lesson: Lesson, outcome: list[str]) -> None:
    assert not outcome, "\n".join(outcome)


@each_lesson
@pytest.mark.variants
def test_every_variant_is_judged_right(lesson: Lesson, request: pytest.FixtureRequest) -> None:
    names = [variant.name for variant in variants(lesson)]
    chosen = one_in(request.config.getoption("--one-in"), names, f"{day()} {lesson.name}")
    # all checks of a right variant run, and of a wrong one only those that it must fail
    wrong = broken_promises(lesson, lambda case: case.label in chosen, jobs=os.cpu_count() or 1)
    assert not wrong, "\n".join(wrong)


def one_in(count: int, names: Sequence[str], seed: str) -> set[str]:
    """Chooses one in `count` of the names, at least one; another seed chooses others, the same seed the same ones."""
    return set(random.Random(seed).sample(names, math.ceil(len(names) / count)))


def day() -> str:
    """The day of the commit that is checked out; nothing in a copy without Git, or on a machine without.

    Not the commit itself: what repairs a variant must not choose others.
    """
    command = ["git", "show", "--no-patch", "--format=%cs", "HEAD"]
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def test_one_in_three_is_a_third_another_with_each_seed_and_one_in_one_is_all() -> None:
    names = [f"right_{number}" for number in range(3000)]
    thirds = [one_in(3, names, seed) for seed in ("a", "a", "b")]
    assert thirds[0] == thirds[1] != thirds[2]
    assert [len(third) for third in thirds] == [1000, 1000, 1000]
    assert one_in(1, names, "a") == set(names)
    assert len(one_in(40, names[:3], "a")) == 1
