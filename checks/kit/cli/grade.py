"""`workbook grade`: grades the submissions of a class, unattended."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checks.kit.cli.grade_output import (
    MAX_LINES,
    compare_with_roster,
    link,
    plan_line,
    progress,
    say_interrupted,
    summary,
)
from checks.kit.lessons.errors import WorkbookError
from checks.kit.lessons.lesson import all_lessons, find_lesson
from checks.kit.service import sandbox
from checks.kit.submissions.grade_cache import GradeCache
from checks.kit.submissions.grading_run import GradingRun, JobRunner
from checks.kit.submissions.intake.read import submissions
from checks.kit.submissions.jobs import RunSettings, fingerprint, without_untouched
from checks.kit.submissions.marking.marks import Rules
from checks.kit.submissions.model import Gradebook
from checks.kit.submissions.results import write
from checks.kit.submissions.work.local import grade_here

if TYPE_CHECKING:
    from rich.console import Console

INTERRUPTED = 130
"""The exit code of a shell for a program that Ctrl-C ended."""


@dataclass(frozen=True, slots=True)
class Grading:
    """What one call of the command grades, and how.

    `isolation` and `rules` are as in Gradebook and Rules, `sandboxed` and `limit` as in RunSettings. With `one_each`,
    each of the `paths` is one submission. `numbers` are those of the lessons.
    """

    paths: Sequence[Path]
    numbers: list[int]
    out: Path
    rules: Rules
    sandboxed: bool
    limit: int
    isolation: str
    one_each: bool
    run_jobs: JobRunner

    def read(self, skipped: Callable[[str], None], *, again: bool) -> GradingRun:
        """Reads the submissions as they are now. With `again`, all of them are to be graded. Raises WorkbookError."""
        read = submissions(self.paths, self.numbers, skipped, one_each=self.one_each)
        # of the checks as they are now: somebody may have changed them since the command began
        settings = RunSettings(fingerprint(), self.sandboxed, self.limit)
        run = GradingRun([without_untouched(one) for one in read], settings, GradeCache(self.out / "cache"))
        run.plan(again=again)
        return run

    def gradebook(self, run: GradingRun) -> Gradebook:
        return run.gradebook(self.numbers, self.isolation)

    def write(self, run: GradingRun) -> Gradebook:
        """Writes all results that there are. Raises OSError."""
        gradebook = self.gradebook(run)
        write.write(gradebook, self.out, self.rules)
        return gradebook


def grade(console: Console, grading: Grading, *, again: bool) -> int:
    """Returns the exit code: 0 if all submissions are graded, 1 if some have no final grade, 130 if interrupted.

    With `again`, all are graded, also those that have a grade. An interrupted run writes what it has, and so does one
    that an error ends. Raises WorkbookError.
    """
    console.print("Reading the submissions …", style="dim")
    skipped: list[str] = []
    run = grading.read(skipped.append, again=again)
    say_skipped(console, skipped)
    console.print(plan_line(run))
    start, interrupted = time.perf_counter(), False
    try:
        with progress(console, run) as on_end:
            asyncio.run(interruptible(run.grade(grading.run_jobs, on_end)))
    except (KeyboardInterrupt, asyncio.CancelledError):
        interrupted = True
    except Exception as error:
        grading.write(run)
        raise inner(error) from None
    gradebook = grading.write(run)
    if interrupted:
        say_interrupted(console, run, grading.out, again)
        return INTERRUPTED
    summary(console, run, gradebook, grading.out, time.perf_counter() - start)
    compare_with_roster(console, gradebook, grading.rules)
    link(console, "Open", grading.out)
    return 1 if gradebook.failed else 0


def prepare(
    console: Console,
    paths: Sequence[Path],
    lessons: str,
    out: Path,
    rules: Rules,
    *,
    workers: int,
    limit: int,
    scheduler: str,
    one_each: bool,
) -> Grading:
    """Finds out how to grade, and says what keeps the submissions apart.

    `lessons` is as `chosen` takes it. `workers` is how many jobs run at once on this machine, 0 for one per core;
    with `scheduler`, the address of a Dask scheduler, its workers grade instead. `limit` is in seconds for each
    lesson of a submission. Raises WorkbookError.
    """
    run_jobs = _on_cluster(scheduler) if scheduler else partial(grade_here, workers=workers or os.cpu_count() or 1)
    numbers = chosen(lessons)
    _check_separate(paths, out)
    _check_writable(out)
    way, isolation = sandbox.detect()
    console.print(f"Isolation: {isolation}", style="" if way else "bold yellow", soft_wrap=True)
    return Grading(paths, numbers, out, rules, bool(way), limit, isolation, one_each, run_jobs)


def say_skipped(console: Console, sentences: Sequence[str]) -> None:
    """Prints what was not read, and why."""
    for sentence in sentences[:MAX_LINES]:
        console.print(f"  {sentence}", style="yellow", soft_wrap=True)
    if more := sentences[MAX_LINES:]:
        console.print(f"  and {len(more)} more", style="yellow")


def _on_cluster(address: str) -> JobRunner:
    try:
        from checks.kit.submissions.work.cluster import grade_on_cluster
    except ImportError:
        raise WorkbookError("--scheduler needs Dask. Install it with: uv sync --extra cluster") from None
    return partial(grade_on_cluster, address=address)


def chosen(text: str) -> list[int]:
    """The numbers of the lessons in `0-3,5`, of all lessons if the text is empty. Raises WorkbookError."""
    if not text:
        return [lesson.number for lesson in all_lessons()]
    numbers: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        last = last if dash else first
        if not (first.isdecimal() and last.isdecimal() and int(first) <= int(last)):
            raise WorkbookError(f"--lessons {text}: write numbers and ranges, such as 0-3,5.")
        find_lesson(int(last))  # fails here for 0-99999999, before the numbers up to it are listed
        numbers.update(range(int(first), int(last) + 1))
    return [find_lesson(number).number for number in sorted(numbers)]


def _check_writable(out: Path) -> None:
    """Finds out before hours of grading whether the results can be written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        raise WorkbookError(f"Nothing can be written to --out {out} ({error.strerror}). Name another folder.") from None


def _check_separate(paths: Sequence[Path], out: Path) -> None:
    """Results in the folder of submissions would be read as a submission the next time."""
    for path in paths:
        if path.is_dir() and out.resolve().is_relative_to(path.resolve()):
            raise WorkbookError(f"--out {out} lies in {path}, with the submissions. Name a folder elsewhere.")


async def interruptible(work: Coroutine[Any, Any, None]) -> None:
    """Ends on SIGTERM and SIGHUP as on Ctrl-C: running graders are stopped, finished grades are kept."""
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    if sys.platform != "win32":
        for signum in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(signum, task.cancel)
    await task


def inner(error: Exception) -> Exception:
    """The error of the one task that failed, in place of the group in which asyncio hands it on."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
