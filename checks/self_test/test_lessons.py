"""Every lesson keeps its promises: it fails as declared, its solution passes, every variant is judged right."""

from __future__ import annotations

import os

import pytest

from checks.kit import catalogue, verify


@pytest.mark.parametrize("lesson", catalogue.lessons(), ids=lambda lesson: lesson.name)
def test_a_lesson_is_whole_on_paper(lesson: catalogue.Lesson) -> None:
    assert verify.faults_on_paper(lesson) == []


@pytest.mark.parametrize("lesson", catalogue.lessons(), ids=lambda lesson: lesson.name)
def test_every_app_of_a_lesson_is_judged_right(lesson: catalogue.Lesson) -> None:
    outcomes = verify.verify([lesson], os.cpu_count() or 1, lambda outcome, done, total: None)
    logs = verify.keep_logs(outcomes)
    wrong = [f"{outcome.case.label}: {text}" for outcome in outcomes for text in outcome.wrong]
    assert wrong == [], f"what the graders printed: {logs}"
