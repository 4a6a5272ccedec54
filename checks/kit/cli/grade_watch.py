"""`workbook grade --watch`: grades a class again whenever something arrives, and shows it on a page in the browser."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from checks.kit.cli.browser import announce
from checks.kit.cli.folder_changes import changed, snapshot
from checks.kit.cli.grade import INTERRUPTED, Grading, inner, interruptible, say_skipped
from checks.kit.cli.grade_output import counted, link, plan_line, progress
from checks.kit.lessons.errors import WorkbookError
from checks.kit.submissions.grading_run import GradingRun
from checks.kit.submissions.jobs import Job
from checks.kit.view.regions import Regions
from checks.kit.view.room import Room
from checks.kit.view.server import serving

if TYPE_CHECKING:
    from rich.console import Console


def watch(console: Console, grading: Grading, *, again: bool, browser: bool) -> int:
    """Runs until Ctrl-C. Returns the exit code: 0, or 130 if that interrupted a grading.

    With `again`, everything is graded once more at the beginning.
    """
    watching = Watching(console, grading)
    try:
        asyncio.run(interruptible(watching.run(again=again, browser=browser)))
    except (KeyboardInterrupt, asyncio.CancelledError):
        pass
    except Exception as error:
        watching.write()
        raise inner(error) from None
    left = watching.latest.remaining if watching.latest else 0
    watching.write()
    if left:
        console.print(f"\n{counted(left, 'lesson')} to go; the same command continues.", style="bold")
    link(console, "Results", grading.out)
    return INTERRUPTED if left else 0


class Watching:
    """`latest` is the run that is under way or has ended last; None before the first one."""

    def __init__(self, console: Console, grading: Grading) -> None:
        self.latest: GradingRun | None = None
        self._console = console
        self._grading = grading
        self._regions = Regions()
        self._room = Room(self._regions, grading.numbers)
        self._skipped: list[str] = []

    async def run(self, *, again: bool, browser: bool) -> None:
        async with serving(self._regions, lambda action: False, "workbook grade … --watch", "room.html") as address:
            announce(self._console, address, browser=browser)
            while True:
                seen = await asyncio.to_thread(snapshot, self._grading.paths)
                await self._grade(again=again)
                again = False
                await changed(self._grading.paths, seen)

    def write(self) -> None:
        """Writes the results that there are."""
        if self.latest:
            self._grading.write(self.latest)

    async def _grade(self, *, again: bool) -> None:
        """Reads the submissions, grades what is new in them, and writes the results."""
        skipped: list[str] = []
        try:
            run = await asyncio.to_thread(self._grading.read, skipped.append, again=again)
        except WorkbookError as error:  # a folder may be away for a moment while it is copied
            self._say(error)
            return
        if skipped != self._skipped:  # the same sentences each time would hide a new one
            say_skipped(self._console, skipped)
            self._skipped = skipped
        self.latest = run
        self._console.print(plan_line(run))
        self._room.begins(self._grading.gradebook(run))
        start = time.monotonic()
        with progress(self._console, run) as printed:

            def on_end(job: Job) -> None:
                printed(job)
                for index in run.places(job.key):
                    self._room.graded(index, run.learner(index), job.lesson)

            try:
                await run.grade(self._grading.run_jobs, on_end)
            except WorkbookError as error:  # somebody changes the checks at this moment, for example
                self._say(error)
                return
        gradebook = await asyncio.to_thread(self._grading.write, run)
        self._room.ended(gradebook)
        complete = sum(grade.report.passed for learner in gradebook.learners for grade in learner.grades.values())
        graded = f"{counted(len(run.todo), 'lesson')} graded in {time.monotonic() - start:.0f} s"
        passing = f"{complete} of {counted(gradebook.submitted, 'lesson')} {'passes' if complete == 1 else 'pass'}"
        self._console.print(f"{time.strftime('%H:%M:%S')}  {graded}; {passing}. Waiting for changes.", soft_wrap=True)

    def _say(self, error: WorkbookError) -> None:
        self._console.print(f"{error} Waiting for changes.", style="red", soft_wrap=True)
        self._room.notice(str(error))
