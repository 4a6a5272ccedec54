"""`workbook grade`: many people's hand-ins, unattended."""

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

from checks.kit import catalogue
from checks.kit.catalogue import CatalogueError
from checks.kit.report import terminal
from checks.kit.service import sandbox
from checks.kit.submissions import results, units
from checks.kit.submissions.intake import submissions
from checks.kit.submissions.local import grade_here
from checks.kit.submissions.marking import Marking, Scheduler
from checks.kit.submissions.model import Gradebook
from checks.kit.submissions.store import Store
from checks.kit.submissions.units import Rules, Unit, begun

if TYPE_CHECKING:
    from rich.console import Console

INTERRUPTED = 130
MOST_NOTES = 5
"""Lines about single hand-ins on the screen; all of them are on the page."""


def grade(
    paths: Sequence[Path], lessons: str, jobs: int, out: Path, limit: int, again: bool, scheduler: str, one: bool
) -> int:
    """The exit code: 0 if every hand-in has its marks, 1 if our own grader failed with some."""
    grading = _on_cluster(scheduler) if scheduler else partial(grade_here, jobs=jobs or os.cpu_count() or 1)
    console = terminal.console()
    numbers = chosen(lessons)
    _keep_apart(paths, out)
    _usable(out)
    console.print("Reading what was handed in …", style="dim")
    passed_over: list[str] = []
    handed_in = [begun(found) for found in submissions(paths, numbers, passed_over.append, one_each=one)]
    for note in passed_over[:MOST_NOTES]:
        console.print(f"  {note}", style="yellow", soft_wrap=True)
    if more := passed_over[MOST_NOTES:]:
        console.print(f"  and {len(more)} more", style="yellow")
    way, isolation = sandbox.way()
    console.print(f"Isolation: {isolation}", style="" if way else "bold yellow", soft_wrap=True)
    marking = Marking(handed_in, Rules(units.fingerprint(), bool(way), limit), Store(out / "units"))
    marking.plan(again=again)
    console.print(_plan(marking))
    began = time.perf_counter()
    try:
        with _progress(console, marking) as ended:
            asyncio.run(_interruptible(marking.grade(grading, ended)))
    except (KeyboardInterrupt, asyncio.CancelledError):
        done = f"{len(marking.todo) - marking.left} of {len(marking.todo)}"
        console.print(f"\nInterrupted; {done} are kept. To go on: the same command again.", style="bold")
        return INTERRUPTED
    book = marking.gradebook(numbers, isolation)
    results.write(book, out)
    _summary(console, marking, book, out, time.perf_counter() - began)
    return 1 if marking.failed else 0


def counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _on_cluster(address: str) -> Scheduler:
    try:
        from checks.kit.submissions.cluster import grade_on_cluster
    except ImportError:
        raise CatalogueError("--scheduler needs Dask. Install it with: uv sync --extra cluster") from None
    return partial(grade_on_cluster, address=address)


def chosen(text: str) -> list[int]:
    """`0-3,5` as numbers; all lessons if empty. Raises CatalogueError for one that there is not."""
    if not text:
        return [lesson.number for lesson in catalogue.lessons()]
    numbers: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        last = last if dash else first
        if not (first.isdecimal() and last.isdecimal() and int(first) <= int(last)):
            raise CatalogueError(f"--lessons {text}: write numbers and ranges, such as 0-3,5.")
        catalogue.lesson(int(last))  # before a long range is counted out
        numbers.update(range(int(first), int(last) + 1))
    return [catalogue.lesson(number).number for number in sorted(numbers)]


def _usable(out: Path) -> None:
    """Finds out before the work whether its results can be written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        raise CatalogueError(
            f"Nothing can be written to --out {out} ({error.strerror}). Name another folder."
        ) from None


def _keep_apart(paths: Sequence[Path], out: Path) -> None:
    """Results among the hand-ins would be a hand-in the next time."""
    for path in paths:
        if path.is_dir() and out.resolve().is_relative_to(path.resolve()):
            raise CatalogueError(f"--out {out} lies in {path}, with the hand-ins. Name a folder elsewhere.")


def _plan(marking: Marking) -> str:
    text = f"{counted(len(marking.submissions), 'hand-in')}, {counted(len(marking.todo), 'lesson')} to grade"
    return text + (f"; {marking.known} have not changed since they were graded" if marking.known else "")


async def _interruptible(work: Coroutine[Any, Any, None]) -> None:
    """Ends on SIGTERM as on Ctrl-C: what runs is ended, what is done is kept."""
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    if sys.platform != "win32":
        for signum in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(signum, task.cancel)
    await task


@contextmanager
def _progress(console: Console, marking: Marking) -> Iterator[Callable[[Unit], None]]:
    """A bar with an estimate on a terminal, else a line now and then."""
    total = len(marking.todo)
    if not total:
        yield lambda unit: None
    elif console.is_terminal and not terminal.plain():
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
        with Progress(*columns, console=console) as bar:
            task = bar.add_task("PostgreSQL and the graders are starting", total=total)
            yield lambda unit: bar.update(task, advance=1, description=_latest(marking, unit))
    else:
        yield _lines(console, marking, total)


def _lines(console: Console, marking: Marking, total: int) -> Callable[[Unit], None]:
    began = time.monotonic()
    last = began
    done = 0

    def ended(unit: Unit) -> None:
        nonlocal last, done
        done += 1
        now = time.monotonic()
        if now - last > 5 or done in (1, total):
            left = (now - began) / done * (total - done)
            rest = f"{left / 60:.0f} min" if left > 90 else f"{left:.0f} s"
            console.print(f"{done}/{total}, about {rest} left: {_latest(marking, unit)}", soft_wrap=True)
            last = now

    return ended


def _latest(marking: Marking, unit: Unit) -> str:
    learners = marking.learners(unit.key)
    more = f" and {len(learners) - 1} more" if len(learners) > 1 else ""
    return f"lesson {unit.lesson:02}, {terminal.printable(learners[0][:30])}{more}"


def _summary(console: Console, marking: Marking, book: Gradebook, out: Path, seconds: float) -> None:
    everything = sum(graded.passed == book.total for graded in book.graded)
    stopped = sum(bool(mark.stopped) for graded in book.graded for mark in graded.marks.values())
    empty = [graded.submission.learner for graded in book.graded if not graded.marks]
    done = f"{counted(len(book.graded), 'hand-in')} graded in {seconds / 60:.1f} min"
    console.print(f"\n{done}; {everything} of them {'passes' if everything == 1 else 'pass'} everything.", style="bold")
    if stopped:
        console.print(f"Stopped by a limit: {counted(stopped, 'lesson')}; the page says which one.")
    if empty:
        names = ", ".join(terminal.printable(name[:30]) for name in empty[:MOST_NOTES])
        more = f" and {len(empty) - MOST_NOTES} more" if len(empty) > MOST_NOTES else ""
        console.print(f"Nothing that could be graded came from {names}{more}; the page says why.", soft_wrap=True)
    for key, said in list(marking.failed.items())[:MOST_NOTES]:
        names = ", ".join(terminal.printable(name) for name in marking.learners(key))
        last = terminal.printable(said.splitlines()[-1][:200]) if said else "it said nothing"
        console.print(f"Not graded, by no fault of theirs: {names} ({last}).", style="bold red", soft_wrap=True)
    if marking.failed:
        missing = counted(len(marking.failed), "lesson")
        console.print(f"Missing: {missing}. Run the same command again: only that is graded.", style="bold")
    page = out / "index.html"
    console.print(f"Open: {page}", style=f"link {page.resolve().as_uri()}", soft_wrap=True)
