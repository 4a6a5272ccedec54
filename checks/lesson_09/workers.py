"""Workers of the learner's, and waits for what they do."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import os
import re
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from checks.lesson_09.buyer import order_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from checks.kit.service.process import RunningProcess
    from checks.kit.testbed.outside_service import Call, OutsideService
    from checks.kit.testbed.testbed import Testbed
    from checks.kit.wire import Statement

START = 10.0
"""Seconds in which a worker that has connected sends its LISTEN; other checks judge one that never does."""

START_FRESH = 90.0
"""Seconds in which an interpreter that has nothing imported sends its first statement; a bound for failures."""

PAUSE = 0.3
"""Seconds without a statement after which a worker that has no call under way is taken to be done."""

ASLEEP = 0.1
"""The same for workers whose processes sleep: they wait for something, and not for a processor."""

ONE_LOOK = 2.0
"""Seconds within which statements belong to one look for mail."""

TWO_LOOKS = 4.6
"""Seconds between two looks of a worker by itself, at least: five, less what a busy machine adds."""

RESTLESS = 200
"""Statements that no single look has."""

SILENCE = 7.0
"""Seconds without a statement or a call after which no more mail is expected: a worker may look every five seconds."""

LATE = 3.5
"""Seconds after which the mail of an order may have been found by a look, which comes every five seconds."""

TRIES = 3
"""How often a mail has to be late: a machine may be busy."""

LONG = 30.0
"""Seconds after which no more mail is expected from workers that go on sending statements; a bound for failures."""


ZONES = ("EAST-5:30", "WEST+8")
"""UTC+5:30 and UTC-8, in the way of POSIX, which turns the signs around."""

FOR_NOTHING = "NOTIFY outbox, '0'"
"""Wakes workers that listen; there is no such row."""

PING = re.compile(r"\s*SELECT\s+\d+\s*;?\s*", re.IGNORECASE)
"""`SELECT 1` and the like: asks whether the connection is alive, and not for mail."""

CHANGED = re.compile(r"(INSERT 0|UPDATE|DELETE) [1-9]")
"""The summary of a statement that has changed rows. It was no look for mail: a worker may store that it is alive."""


class Workers:
    """Starts `python -m app.worker`, with settings of the check's own."""

    def __init__(self, testbed: Testbed) -> None:
        self._testbed = testbed
        self.done: list[Statement] = []
        """Statements of workers that PostgreSQL has responded to."""
        self._numbers = itertools.count(1)
        self._zones = itertools.cycle(ZONES)
        self._news = asyncio.Event()
        testbed.wire.subscribe(on_statement=self._note)

    def _note(self, statement: Statement) -> None:
        if statement.process.startswith("worker"):
            self.done.append(statement)
            self._news.set()

    async def start(self, **env: str) -> RunningProcess:
        """A worker that waits for mail: it listens, and has sent what it sends at its start."""
        worker = await self.begin(**env)
        await self._listens(worker, START)
        return worker

    async def start_fresh(self, **env: str) -> RunningProcess:
        """As `start`, for an interpreter that imports everything anew, which may take long on a busy machine."""
        worker = await self._testbed.start("app.worker", env=self._zone() | env, name=self._next_name())
        await self.until(lambda: any(one.process == worker.name for one in self.done), START_FRESH)
        await self._listens(worker, START)
        return worker

    async def begin(self, **env: str) -> RunningProcess:
        """A worker that has just connected to the database."""
        return await self._testbed.start("app.worker", env=self._zone() | env, name=self._next_name(), connected=True)

    def _next_name(self) -> str:
        return f"worker {next(self._numbers)}"

    def _zone(self) -> dict[str, str]:
        """Of the next worker. A time that is stored without its zone means another moment to others."""
        return {"TZ": next(self._zones)}

    async def _listens(self, worker: RunningProcess, seconds: float) -> None:
        """Returns when this worker listens, and has sent what it sends at its start; or after so many seconds."""
        await self.until(lambda: any(one.process == worker.name and one.verb == "LISTEN" for one in self.done), seconds)
        await self.settled()

    async def until(self, holds: Callable[[], bool], seconds: float) -> bool:
        """Looks after each statement of a worker whether `holds()`; False after so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not holds():
                    self._news.clear()
                    await self._news.wait()
        return holds()

    async def settled(self) -> None:
        """Returns when the workers send no more statements by themselves, or after two seconds of statements."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2):
                while True:
                    await self._testbed.wire.wait_idle(1, strict=False)
                    before = len(self.done)
                    began = perf_counter()
                    if await self.until(lambda: len(self.done) > before, ASLEEP):  # noqa: B023 - awaited here
                        continue
                    prompt = perf_counter() - began < 1.5 * ASLEEP  # else the check itself waits for a processor
                    if prompt and all(self._state(worker) == "S" for worker in self._testbed.background):
                        return
                    if await self.until(lambda: len(self.done) > before, PAUSE - ASLEEP):  # noqa: B023
                        continue
                    if all(self._state(worker) != "R" for worker in self._testbed.background):
                        return

    def _state(self, worker: RunningProcess) -> str:
        """Of the process: S if it has ended or waits, R if it computes; empty where the system does not tell."""
        if worker.exit.done():
            return "S"
        try:
            if Path(f"/proc/{worker.pid}/cwd").resolve() != self._testbed.folder.resolve():
                return ""  # in a sandbox, where the number means another process
            return Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return ""

    async def looks_again(self) -> int:
        """How often a worker sent one statement by itself, if in less than TWO_LOOKS seconds; else 0.

        One that has looked once in this time is watched for as long after that.
        """
        since, began = len(self.done), perf_counter()
        while not (often := self._often(since)):
            firsts = [at[0] for at in self._looks(since)]
            end = min(max([began, *firsts]), began + TWO_LOOKS) + TWO_LOOKS
            if (left := end - perf_counter()) <= 0:
                break
            before = len(self.done)
            await self.until(lambda: len(self.done) > before, left)  # noqa: B023 - awaited here
        self._testbed.note(f"watched the workers for {perf_counter() - began:.0f} s")
        return often

    async def looks_within(self, seconds: float, before: float) -> int:
        """The same within so many seconds; what workers send at the time `before` or later does not count."""
        since = len(self.done)
        await self.until(lambda: len(self.done) > since + RESTLESS, seconds)
        self._testbed.note(f"watched the workers for {seconds:.0f} s")
        return self._often(since, before)

    def _often(self, since: int, before: float = math.inf) -> int:
        looks = self._looks(since, before)
        if sum(one.started < before for one in self.done[since:]) > RESTLESS:
            return max(map(len, looks), default=0)
        return max((len(at) for at in looks if any(b - a < TWO_LOOKS for a, b in pairwise(at))), default=0)

    def _looks(self, since: int, before: float = math.inf) -> list[list[float]]:
        """When workers looked after the statement number `since`: a list for each statement of each worker.

        A worker may look on several connections at a time, and a busy machine spreads a look. What comes within
        ONE_LOOK is one.
        """
        looks: dict[tuple[str, str], list[float]] = {}
        for one in self.done[since:]:
            if one.data and one.started < before and not (PING.fullmatch(one.text) or CHANGED.search(one.tag)):
                at = looks.setdefault((one.process, one.text), [])
                if not at or one.started - at[-1] > ONE_LOOK:
                    at.append(one.started)
        return list(looks.values())

    async def send(self, gateway: OutsideService, *orders: int) -> bool:
        """Returns True when the gateway has accepted a mail for each of these orders, and the workers have settled.

        False when that has become unlikely: no worker has sent a statement, and the gateway got no call, for some time.
        """
        wanted = set(orders)
        if not await self.get_on(gateway, lambda: wanted <= accepted(gateway)):
            return False
        await self.settled()
        return True

    async def get_on(self, gateway: OutsideService, holds: Callable[[], bool], long: float = LONG) -> bool:
        """Looks after each statement and call whether `holds()`; False if none comes for SILENCE, or after `long`."""

        def progress() -> tuple[int, int]:
            return len(gateway.calls), len(self.done)

        with self._hearing(gateway), contextlib.suppress(TimeoutError):
            async with asyncio.timeout(long):
                while not holds():
                    before = progress()
                    if not await self.until(lambda: holds() or progress() != before, SILENCE):  # noqa: B023 - awaited here
                        self._testbed.note(f"the workers did nothing for {SILENCE:.0f} s")
                        return False
        self._testbed.note("waited for the workers")
        return holds()

    async def call(self, gateway: OutsideService, holds: Callable[[], bool], seconds: float = 10) -> bool:
        """Looks after each call of the gateway, too, whether `holds()`; False after so many seconds."""
        with self._hearing(gateway):
            held = await self.until(holds, seconds)
        self._testbed.note("waited for the workers")
        return held

    @contextlib.contextmanager
    def _hearing(self, gateway: OutsideService) -> Iterator[None]:
        def hear(_: Call) -> None:
            self._news.set()

        gateway.on_end.append(hear)
        try:
            yield
        finally:
            gateway.on_end.remove(hear)


def stretched(seconds: float) -> float:
    """So many seconds, or more on a busy machine, where the steps of a check take longer."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return seconds * max(1.0, load / (4 * (os.cpu_count() or 1)))


def accepted(gateway: OutsideService) -> set[int]:
    """The orders about which the gateway has accepted a mail."""
    return {order_of(call) for call in gateway.calls if call.answer is not None and call.answer.status < 300}


def sent_by(process: str) -> Callable[[Statement], bool]:
    """For `wire.hold`: all that this process sends, BEGIN included, at which PostgreSQL's now() is fixed."""
    return lambda statement: statement.process == process
