"""Runs checks, a few at the same time, and hands out their results in order.

Most of a check is waiting: for a process to start, for a statement on the wire, for an app to stop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from typing import Any

from checks.kit.lessons.errors import WorkbookError
from checks.kit.report.model import Outcome, Result

AT_ONCE = 6
"""Checks that run at the same time unless the run says otherwise; each has a database, a proxy and apps of its own."""

AMONG_OTHERS = 3
"""The same of a run that shares the machine with others, as those of `workbook dev verify` and `grade` do."""

ASK_AGAIN = 5.0
"""Seconds in which a canceled check should have cleaned up; one whose app takes long to leave is canceled once more."""


@dataclass(eq=False, slots=True)
class ScheduledCheck:
    """A check, and what decides when it runs.

    `empty` is its result before it has run. `run` runs it and returns its result. `needs` are the names of checks of
    the same lesson without which this one says nothing; a name that is not among the scheduled checks is ignored.
    `serial`: it measures time, so nothing else runs meanwhile. `start_early`: it waits more than it works.
    """

    lesson: str
    empty: Result
    run: Callable[[], Coroutine[Any, Any, Result]]
    needs: Sequence[str] = ()
    serial: bool = False
    start_early: bool = False


class Scheduler:
    """Starts the first check first, then those that `start_early`, then the others in their order, serial ones last.

    A check runs when those that it needs have passed. It is blocked if one of them did not, or if an earlier check of
    its lesson says that the app does not start. To be used and closed in one event loop, whose `run` may end between
    two results. Raises WorkbookError if checks need each other.
    """

    def __init__(self, checks: Sequence[ScheduledCheck], at_once: int = AT_ONCE) -> None:
        self._checks = checks
        self._at_once = at_once
        self._needs = _needs(checks)
        # serial ones last: one that waits for those that run lets no other start meanwhile
        self._waiting = sorted(checks, key=lambda check: (check is not checks[0], not check.start_early, check.serial))
        self._running: dict[asyncio.Task[Result], ScheduledCheck] = {}
        self._results: dict[ScheduledCheck, Result] = {}
        self._handed_out = 0

    async def next_result(self) -> Result:
        """The result of the next check in their order, one call at a time. Raises what a check's `run` raises."""
        check = self._checks[self._handed_out]
        self._start()
        while check not in self._results:
            done, _ = await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                ended = self._running.pop(task)
                if ended not in self._results:  # else it was blocked meanwhile, and canceled
                    self._results[ended] = task.result()
            self._block()
            self._start()
        self._handed_out += 1
        return self._results[check]

    async def close(self) -> None:
        """Cancels the checks that still run, and returns when they have cleaned up.

        A check may lose a cancellation, for instance where it awaits a request that it has just canceled itself, and
        would then go on to its end. So it is asked again.
        """
        self._waiting.clear()
        running: set[asyncio.Task[Result]] = set(self._running)
        while running:
            for task in running:
                task.cancel()
            _, running = await asyncio.wait(running, timeout=ASK_AGAIN)

    def _start(self) -> None:
        for check in list(self._waiting):
            if any(needed not in self._results for needed in self._needs[check]):
                continue
            if not self._has_room_for(check):  # nothing overtakes it, or a serial check would wait forever
                return
            self._waiting.remove(check)
            self._running[asyncio.create_task(check.run())] = check

    def _has_room_for(self, check: ScheduledCheck) -> bool:
        running = self._running.values()
        return not running or (
            len(running) < self._at_once and not check.serial and not any(other.serial for other in running)
        )

    def _block(self) -> None:
        """Gives a result to the checks that are known to be blocked, whatever has become of them so far.

        In order, because a check is blocked by one that is blocked, and only what comes before it may block the rest of
        a lesson: so results do not depend on which of two checks ends first.
        """
        for check in self._checks[self._handed_out :]:
            if blocked_by := self._blocker(check):
                self._results[check] = replace(check.empty, outcome=Outcome.BLOCKED, blocked_by=blocked_by)
                if check in self._waiting:
                    self._waiting.remove(check)
                for task, running in self._running.items():
                    if running is check:
                        task.cancel()

    def _blocker(self, check: ScheduledCheck) -> str:
        """What the check waits for in vain, in words; empty if nothing is known that blocks it."""
        for needed in self._needs[check]:
            result = self._results.get(needed)
            if result is not None and result.outcome is not Outcome.PASSED:
                return result.title
        earlier = self._checks[: self._checks.index(check)]
        if any(
            self._results[other].blocks_lesson
            for other in earlier
            if other in self._results and other.lesson == check.lesson
        ):
            return "an app that starts"
        return ""


def _needs(checks: Sequence[ScheduledCheck]) -> dict[ScheduledCheck, list[ScheduledCheck]]:
    """The scheduled checks that each one needs."""
    by_name = {(check.lesson, check.empty.name): check for check in checks}
    needs = {
        check: [by_name[check.lesson, name] for name in check.needs if (check.lesson, name) in by_name]
        for check in checks
    }
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        names = ", ".join(sorted({check.empty.name for check in error.args[1]}))
        raise WorkbookError(f"These checks need each other, so that none can run: {names}.") from None
    return needs
