"""What `workbook grade` prints: what there is to do, how far it is, and what came out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from checks.kit.report import terminal
from checks.kit.report.safe_text import display_line
from checks.kit.submissions.grading_run import GradingRun
from checks.kit.submissions.jobs import Job
from checks.kit.submissions.marking.marks import Rules, make_marks
from checks.kit.submissions.model import Gradebook

if TYPE_CHECKING:
    from rich.console import Console

MAX_LINES = 5
"""Lines of one kind on the screen, such as notes on skipped files; of more, only their number is printed."""

MAX_NAME_CHARACTERS = 30
MAX_MESSAGE_CHARACTERS = 200

LINE_INTERVAL = 5
"""Seconds between two lines of progress in a log or a pipe."""


def counted(number: int, noun: str) -> str:
    """`1 lesson`, `2 lessons`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def plan_line(run: GradingRun) -> str:
    text = f"{counted(len(run.submissions), 'submission')}, {counted(len(run.todo), 'lesson')} to grade"
    return text + (f"; {run.cached} have not changed since they were graded" if run.cached else "")


@contextmanager
def progress(console: Console, run: GradingRun) -> Iterator[Callable[[Job], None]]:
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


def say_interrupted(console: Console, run: GradingRun, out: Path, again: bool) -> None:
    done = f"{len(run.todo) - run.remaining} of {len(run.todo)}"
    advice = "run the same command again"
    if again:
        advice += " without --again (a lesson that is left and has not changed keeps its earlier grade)"
    console.print(f"\nInterrupted. {done} are graded; to continue, {advice}.", style="bold", soft_wrap=True)
    link(console, "So far", out)


def link(console: Console, what: str, out: Path) -> None:
    page = out / "index.html"
    console.print(f"{what}: {page}", style=f"link {page.resolve().as_uri()}", soft_wrap=True)


def summary(console: Console, run: GradingRun, gradebook: Gradebook, out: Path, seconds: float) -> None:
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


def compare_with_roster(console: Console, gradebook: Gradebook, rules: Rules) -> None:
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
