"""`workbook dev flaky` finds a check whose verdict is not the same in each run."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from checks.kit.authoring.flaky import History, busy_cores
from checks.kit.authoring.flaky_output import show
from checks.self_test.commands import ENVIRON, WORKBOOK, workbook

ALTERNATES = '''
from pathlib import Path

from checks.kit.report import expect


async def test_it_starts_and_answers(shop):
    """The app starts."""


async def test_health_asks_the_database(shop):
    """Passes in every second run."""
    runs = Path("{runs}")
    number = len(runs.read_text()) if runs.exists() else 0
    runs.write_text("x" * (number + 1))
    expect(number % 2 == 0, "Run " + str(number) + " is an odd one.", because="Orders are lost.")
'''


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory, copied: Callable[[Path], Path]) -> Path:
    """A workbook with two checks in lesson 00, of which one alternates."""
    folder = tmp_path_factory.mktemp("flaky")
    checkout = copied(folder / "bookshop")
    checks = checkout / "checks" / "lesson_00" / "test_start_and_stop.py"
    checks.write_text(ALTERNATES.replace("{runs}", str(folder / "runs")), encoding="utf-8")
    return checkout


def test_it_lists_the_check_that_alternates_and_not_the_one_that_passes(checkout: Path) -> None:
    done = workbook(checkout, "dev", "flaky", "0", "--times", "3", "--only", "test_", COLUMNS="200")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "✗ test_health_asks_the_database: 2 × passed, 1 × failed" in done.stdout
    assert "1 × Run 1 is an odd one." in done.stdout
    assert "test_it_starts_and_answers" not in done.stdout
    assert "run   3/3" in done.stdout and "s left" in done.stdout


@pytest.mark.slow
def test_an_interrupted_run_says_what_is_known(checkout: Path) -> None:
    command = [*WORKBOOK, "dev", "flaky", "0", "--times", "999"]
    with subprocess.Popen(command, cwd=checkout, env=ENVIRON, stdout=subprocess.PIPE, text=True) as flaky:
        assert flaky.stdout is not None
        for line in flaky.stdout:
            if line.startswith("run   2/"):
                break
        flaky.send_signal(signal.SIGINT)
        seen = flaky.stdout.read()
        assert flaky.wait(60) == 130
    assert "Interrupted after" in seen
    assert re.search(r"test_health_asks_the_database: \d × \w+, \d × \w+", seen)


def test_a_check_that_always_fails_is_named_but_no_difference(capsys) -> None:
    history = History("test_x")
    for _ in range(3):
        history.add("failed", "No response.")
    assert show({"test_x": history}, 3) == 0
    printed = capsys.readouterr().out
    assert "test_x: 3 × failed" in printed and "3 × No response." in printed


def test_busy_loops_end_with_their_block() -> None:
    before = set(psutil.Process().children())
    with busy_cores(2):
        busy = set(psutil.Process().children()) - before
        assert len(busy) == 2
    assert not any(process.is_running() for process in busy)
