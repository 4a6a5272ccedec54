"""Every notebook runs from top to bottom on a live PostgreSQL."""

from __future__ import annotations

import subprocess
import sys

import pytest

from checks.kit.lessons.lesson import Lesson, all_lessons
from checks.kit.lessons.paths import ROOT


def run(lesson: Lesson) -> subprocess.CompletedProcess[str]:
    # nbmake is loaded in a process of its own: it costs every other run 1.5 s at start-up
    command = [sys.executable, "-m", "pytest", "-p", "nbmake.pytest_plugin", "--nbmake", str(lesson.notebook)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.background(job=run)
@pytest.mark.parametrize("lesson", all_lessons(), ids=lambda lesson: lesson.name)
def test_a_notebook_runs_to_its_end(lesson: Lesson, outcome: subprocess.CompletedProcess[str]) -> None:
    assert outcome.returncode == 0, outcome.stdout[-4000:]
    assert "1 passed" in outcome.stdout
