"""`workbook grade`: grades the submissions of a class, unattended."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checks.kit.lessons.errors import WorkbookError
from checks.kit.lessons.lesson import all_lessons, find_lesson
from checks.kit.report import terminal
from checks.kit.report.safe_text import display_line
from checks.kit.service import sandbox
from checks.kit.submissions.grade_cache import GradeCache
from checks.kit.submissions.grading_run import GradingRun, JobRunner
from checks.kit.submissions.intake.read import submissions
from checks.kit.submissions.jobs import Job, RunSettings, fingerprint, without_untouched
from checks.kit.submissions.marking.marks import Rules, make_marks
from checks.kit.submissions.model import Gradebook
from checks.kit.submissions.results import write
from checks.kit.submissions.work.local import grade_here

if TYPE_CHECKING:
    from rich.console import Console

INTERRUPTED = 130
"""The exit code of a shell for a program that Ctrl-C ended."""

MAX_LINES = 5
"""Lines of one kind on the screen, such as notes on skipped files; of more, only their number is printed."""

MAX_NAME_CHARACTERS = 30
MAX_MESSAGE_CHARACTERS = 200

LINE_INTERVAL = 5
"""Seconds between two lines of progress where there is no terminal."""


def grade(
    paths: Sequence[Path],
    lessons: str,
    out: Path,
    rules: Rules,
    *,
    workers: int,
    limit: int,
    again: bool,
    scheduler: str,
    one_each: bool,
) -> int:
    """Returns the exit code: 0 if all submissions are graded, 1 if some have no final grade, 130 if interrupted.

    An interrupted run writes what it has, and so does one that an error ends.

    `lessons` is as `chosen` takes it. `workers` is how many jobs run at once on this machine, 0 for one per core;
    with `scheduler`, the address of a Dask scheduler, its workers grade instead. `limit` is in seconds for each
    lesson of a submission. Raises WorkbookError.
    """
    run_jobs = _on_cluster(scheduler) if scheduler else partial(grade_here, workers=workers or os.cpu_count() or 1)
    console = terminal.console()
    numbers = chosen(lessons)
    _check_separate(paths, out)
    _check_writable(out)
    console.print("Reading the submissions …", style="dim")
    skipped: list[str] = []
    read = submissions(paths, numbers, skipped.append, one_each=one_each)
    for sentence in skipped[:MAX_LINES]:
        console.print(f"  {sentence}", style="yellow", soft_wrap=True)
    if more := skipped[MAX_LINES:]:
        console.print(f"  and {len(more)} more", style="yellow")
    way, isolation = sandbox.detect()
    console.print(f"Isolation: {isolation}", style="" if way else "bold yellow", soft_wrap=True)
    settings = RunSettings(fingerprint(), bool(way), limit)
    run = GradingRun([without_untouched(submission) for submission in read], settings, GradeCache(out / "cache"))
    run.plan(again=again)
    console.print(_plan(run))
    start, interrupted = time.perf_counter(), False
    try:
        with _progress(console, run) as on_end:
            asyncio.run(_interruptible(run.grade(run_jobs, on_end)))
    except (KeyboardInterrupt, asyncio.CancelledError):
        interrupted = True
    except Exception as error:
        write.write(run.gradebook(numbers, isolation), out, rules)
        raise _inner(error) from None
    gradebook = run.gradebook(numbers, isolation)
    write.write(gradebook, out, rules)
    if interrupted:
        _say_interrupted(console, run, out, again)
        return INTERRUPTED
    _summary(console, run, gradebook, out, time.perf_counter() - start)
    _compare_with_roster(console, gradebook, rules)
    _link(console, "Open", out)
    return 1 if gradebook.failed else 0


def counted(number: int, noun: str) -> str:
    """`1 lesson`, `2 lessons`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


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


def _plan(run: GradingRun) -> str:
    text = f"{counted(len(run.submissions), 'submission')}, {counted(len(run.todo), 'lesson')} to grade"
    return text + (f"; {run.cached} have not changed since they were graded" if run.cached else "")


async def _interruptible(work: Coroutine[Any, Any, None]) -> None:
    """Ends on SIGTERM and SIGHUP as on Ctrl-C: running graders are stopped, finished grades are kept."""
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    if sys.platform != "win32":
        for signum in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(signum, task.cancel)
    await task


@contextmanager
def _progress(console: Console, run: GradingRun) -> Iterator[Callable[[Job], None]]:
    """Shows a bar with the time left on a terminal, else a line every few seconds."""
    total = len(run.todo)
    if not total:
        yield lambda job: None
    elif console.is_terminal and not terminal.plain():
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
        with Progress(*columns, console=console) as bar:
            task = bar.add_task("PostgreSQL and the graders are starting", total=total)
            yield lambda job: bar.update(task, advance=1, description=_latest(run, job))
    else:
        yield _line_printer(console, run, total)


def _line_printer(console: Console, run: GradingRun, total: int) -> Callable[[Job], None]:
    start = last_line = time.monotonic()
    done = 0

    def on_end(job: Job) -> None:
        nonlocal last_line, done
        done += 1
        now = time.monotonic()
        if now - last_line > LINE_INTERVAL or done in (1, total):
            seconds = (now - start) / done * (total - done)
            time_left = f"{seconds / 60:.0f} min" if seconds > 90 else f"{seconds:.0f} s"
            console.print(f"{done}/{total}, about {time_left} left: {_latest(run, job)}", soft_wrap=True)
            last_line = now

    return on_end


def _latest(run: GradingRun, job: Job) -> str:
    learners = run.learners(job.key)
    more = f" and {len(learners) - 1} more" if len(learners) > 1 else ""
    return f"lesson {job.lesson:02}, {_name(learners[0])}{more}"


def _name(learner: str) -> str:
    return display_line(learner, MAX_NAME_CHARACTERS)


def _inner(error: Exception) -> Exception:
    """The error of the one task that failed, in place of the group in which asyncio hands it on."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _say_interrupted(console: Console, run: GradingRun, out: Path, again: bool) -> None:
    done = f"{len(run.todo) - run.remaining} of {len(run.todo)}"
    advice = "run the same command again"
    if again:
        advice += " without --again: of the rest, what has not changed keeps its earlier grade"
    console.print(f"\nInterrupted. {done} are graded; to continue, {advice}.", style="bold", soft_wrap=True)
    _link(console, "So far", out)


def _link(console: Console, what: str, out: Path) -> None:
    page = out / "index.html"
    console.print(f"{what}: {page}", style=f"link {page.resolve().as_uri()}", soft_wrap=True)


def _summary(console: Console, run: GradingRun, gradebook: Gradebook, out: Path, seconds: float) -> None:
    complete = sum(learner.passed == gradebook.total for learner in gradebook.learners)
    stopped = sum(bool(grade.stopped) for learner in gradebook.learners for grade in learner.grades.values())
    empty = [learner.submission.learner for learner in gradebook.learners if not learner.submission.lessons]
    done = f"{counted(len(gradebook.learners), 'submission')} graded in {seconds / 60:.1f} min"
    console.print(f"\n{done}; {complete} of them {'passes' if complete == 1 else 'pass'} all checks.", style="bold")
    if stopped:
        console.print(f"Stopped by a limit: {counted(stopped, 'lesson')}. The page says which one.")
    if empty:
        names = ", ".join(_name(learner) for learner in empty[:MAX_LINES])
        more = f" and {len(empty) - MAX_LINES} more" if len(empty) > MAX_LINES else ""
        console.print(f"Submitted nothing that can be graded: {names}{more}. The page says why.", soft_wrap=True)
    for key, output in list(run.failed.items())[:MAX_LINES]:
        names = ", ".join(_name(learner) for learner in run.learners(key))
        message = display_line(output.splitlines()[-1], MAX_MESSAGE_CHARACTERS) if output else "it printed nothing"
        console.print(f"Not graded, because the grader failed: {names} ({message}).", style="bold red", soft_wrap=True)
    if errors := [
        f"{_name(learner.submission.learner)} (lesson {number:02})"
        for learner in gradebook.learners
        for number, grade in sorted(learner.grades.items())
        if grade.has_error
    ]:
        more = f" and {len(errors) - MAX_LINES} more" if len(errors) > MAX_LINES else ""
        names = ", ".join(errors[:MAX_LINES]) + more
        console.print(f"Not final, because a check ended with an error: {names}.", style="bold red", soft_wrap=True)
    if gradebook.failed:
        missing = counted(gradebook.failed, "lesson")
        console.print(f"{missing} to go. Run the same command again: it grades only what is missing.", style="bold")


def _compare_with_roster(console: Console, gradebook: Gradebook, rules: Rules) -> None:
    """Says who is missing. marks.csv has all of them, with a remark."""
    if rules.roster is None:
        return
    marks = make_marks(gradebook, rules)
    missing = [mark.person.name for mark in marks if mark.person and not mark.learner]
    unknown = [mark.learner.submission.learner for mark in marks if mark.learner and not mark.person and mark.counts]
    for what, names in (("Handed in nothing", missing), ("Not on the roster", unknown)):
        if names:
            shown = ", ".join(_name(name) for name in names[:MAX_LINES])
            more = f" and {len(names) - MAX_LINES} more" if len(names) > MAX_LINES else ""
            console.print(f"{what}: {shown}{more}. marks.csv lists them.", soft_wrap=True)
