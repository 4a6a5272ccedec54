"""Grades one app many times and compares the verdicts: `workbook dev flaky`."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from checks.kit.grading.pool import GraderPool, graders
from checks.kit.lessons.errors import WorkbookError
from checks.kit.lessons.lesson import Lesson
from checks.kit.report.model import Report, Result

LIMIT = 300
"""Seconds after which one run counts as hung; a bound for failures."""

LOG_LINES = 10
"""How much of pytest's output is shown for a run that gave no verdicts."""

# ends with the process that started it, also where that one was killed
BUSY = """
import os
parent = os.getppid()
while os.getppid() == parent:
    for _ in range(100_000):
        pass
"""


@dataclass(slots=True)
class History:
    """The verdicts on one check, of all runs so far. `texts` counts why it did not pass."""

    name: str
    outcomes: Counter[str] = field(default_factory=Counter)
    texts: Counter[str] = field(default_factory=Counter)

    @property
    def differs(self) -> bool:
        """Whether the check had one verdict in one run and another one in another."""
        return len(self.outcomes) > 1

    def add(self, outcome: str, text: str = "") -> None:
        self.outcomes[outcome] += 1
        if text:
            self.texts[text] += 1


Progress = Callable[[int, float], None]
"""Called after each run, with the number of runs so far and the seconds that they took."""


def grade_repeatedly(
    lesson: Lesson, folder: Path, times: int, histories: dict[str, History], on_run: Progress, *, only: str, load: bool
) -> None:
    """Grades the app in `folder` one time after another and adds the verdicts to `histories`, by check.

    Only checks whose name contains `only` run. With `load`, every core has a busy loop meanwhile. What is in
    `histories` stays true if this is interrupted.
    """
    if only and not any(only in check.name for check in lesson.checks):
        names = ", ".join(check.name for check in lesson.checks)
        raise WorkbookError(f"No check of lesson {lesson.number} is called {only}. There are: {names}.")
    asyncio.run(_grade_repeatedly(lesson, folder, times, histories, on_run, only, load))


async def _grade_repeatedly(
    lesson: Lesson, folder: Path, times: int, histories: dict[str, History], on_run: Progress, only: str, load: bool
) -> None:
    expected = {check.name for check in lesson.checks if only in check.name}
    async with graders() as warm:
        with busy_cores(os.cpu_count() or 1) if load else _idle_cores():
            began = time.perf_counter()
            for run in range(1, times + 1):
                results, output = await _grade(warm, lesson, folder, only)
                for name in expected | results.keys():
                    histories.setdefault(name, History(name)).add(*_verdict(results.get(name), output))
                on_run(run, time.perf_counter() - began)


def _verdict(result: Result | None, output: str) -> tuple[str, str]:
    """The outcome, and why it is not a pass."""
    if result is None:
        return "no verdict", output
    if result.finding:
        return result.outcome, result.finding.happened
    return result.outcome, f"It needs: {result.blocked_by}" if result.blocked_by else ""


async def _grade(warm: GraderPool, lesson: Lesson, folder: Path, only: str) -> tuple[dict[str, Result], str]:
    """The results of one run by check, and the end of what pytest printed."""
    with tempfile.TemporaryDirectory(prefix="flaky-", dir=warm.scratch) as scratch:
        report, log = Path(scratch) / "report.json", Path(scratch) / "log"
        arguments = [str(lesson.checks_folder), "--target", str(folder), "--report-json", str(report)]
        arguments += ["-p", "no:cacheprovider", *(["-k", only] if only else [])]
        process = await warm.start(*arguments, log=log)
        try:
            await asyncio.wait([process.exit], timeout=LIMIT)
        finally:
            process.kill()
        output = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:])
        try:
            reports = json.loads(report.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}, output
    return {result.name: result for raw in reports for result in Report.from_dict(raw).results}, output


@contextmanager
def busy_cores(count: int) -> Iterator[None]:
    """`count` processes that do nothing but compute, until the block ends."""
    processes = [subprocess.Popen([sys.executable, "-S", "-c", BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


@contextmanager
def _idle_cores() -> Iterator[None]:
    yield
