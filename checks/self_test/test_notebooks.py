"""Every notebook runs from top to bottom on a live PostgreSQL."""

from __future__ import annotations

import subprocess
import sys

import pytest

from checks.kit import catalogue


@pytest.mark.parametrize("lesson", catalogue.lessons(), ids=lambda lesson: lesson.name)
def test_a_notebook_runs_to_its_end(lesson: catalogue.Lesson) -> None:
    # nbmake is loaded in a process of its own: it costs every other run 1.5 s at start-up
    command = [sys.executable, "-m", "pytest", "-p", "nbmake.pytest_plugin", "--nbmake", str(lesson.notebook)]
    done = subprocess.run(command, cwd=catalogue.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:]
    assert "1 passed" in done.stdout
