"""How much work a login is: one at a time, many at once, and in processor time where that can be read."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from checks.lesson_06.people import WRONG, log_in

if TYPE_CHECKING:
    from collections.abc import Mapping

    from checks.kit.service.app import App

LEAST, LEAST_BY_CLOCK, MOST = 0.45, 0.7, 2.0
"""How far a refusal may differ from that of a wrong password, in logins. A hash left out is 0.7 to 0.9.

A clock is less exact on a busy machine, so it gets more room where the processor time is known as well.
"""

HASHED = 0.01
"""Seconds of the processor for a login that has hashed in the app's process; what else it does takes a few ms."""

ENOUGH = 15.0
"""Seconds after which no further round begins: a bound for a machine on which a hash takes long."""


Costs = dict[str, list[tuple[float, float]]]
"""Of each kind of login: its times by the clock and in processor time, a pair for each round."""


@dataclass(frozen=True, slots=True)
class Work:
    """Seconds in which `together` logins, sent at the same time, are accepted, and refused for each reason.

    They are seconds of the clock, or of the processor if `computed`. `quickest` is the same of the quickest rounds. A
    kind differs only if it differs there as well: a busy machine makes single rounds slower, and never quicker.
    """

    together: int
    computed: bool
    right: float
    wrong: float
    others: dict[str, float]
    least: float = LEAST
    quickest: Work | None = None

    def __str__(self) -> str:
        many = self.together > 1
        logins = f"{self.together} logins at once" if many else "A login"
        refusals = f"{self.together} refusals of a wrong password" if many else "refusing a wrong password"
        unit = "ms of processor time" if self.computed else "ms"
        return f"{logins} took {1000 * self.right:.0f} {unit}, and {refusals} {1000 * self.wrong:.0f} ms."

    def listed(self, kinds: list[str]) -> str:
        """These kinds of refusal, each with what it took."""
        count = f" for {self.together}" if self.together > 1 else ""
        return ", ".join(f"{kind} ({1000 * self.others[kind]:.0f} ms{count})" for kind in kinds)

    @property
    def less(self) -> list[str]:
        kinds = [kind for kind, one in self.others.items() if self.wrong - one > self.least * self.right]
        return [kind for kind in kinds if self.quickest is None or kind in self.quickest.less]

    @property
    def more(self) -> list[str]:
        kinds = [kind for kind, one in self.others.items() if one - self.wrong > MOST * self.right]
        return [kind for kind in kinds if self.quickest is None or kind in self.quickest.more]

    @property
    def clear(self) -> bool:
        return all(abs(self.wrong - one) < 0.3 * self.right for one in self.others.values())


async def measured_work(app: App, who: Mapping[str, str], others: Mapping[str, str]) -> list[Work]:
    """Logs in as `who`, with the right and with a wrong password, and as the others, by e-mail, with a wrong one.

    A sleep takes time and no work: many at once sleep together, but they share the processor. So more and more are
    sent at once, until their processor times can be compared. It is measured again where the result is not clear.
    """
    emails = {"right": who["email"], "wrong": who["email"], **others}
    passwords = {kind: who["password"] if kind == "right" else WRONG for kind in emails}
    costs: dict[int, Costs] = {}
    began = time.perf_counter()
    work: list[Work] = []
    for count in range(1, 6):
        for together in (1, 4, 4 * (os.cpu_count() or 1)):
            if not any(_precise(fewer, costs[fewer]) for fewer in costs if fewer < together):
                measured = costs.setdefault(together, {kind: [] for kind in emails})
                for kind, email in emails.items():
                    measured[kind].append(await _cost(app, email, passwords[kind], together))
        work = []
        for together, measured in costs.items():
            if _precise(together, measured):
                work.append(_processor_work(together, measured))
            work.append(_clock_work(together, measured, LEAST_BY_CLOCK if work else LEAST))
        enough = 2 if any(_precise(together, measured) for together, measured in costs.items()) else 3
        if (count >= enough and all(one.clear for one in work)) or time.perf_counter() - began > ENOUGH:
            break
    return work


def _clock_work(together: int, measured: Costs, least: float) -> Work:
    best = {kind: min(seconds for seconds, _ in costs) for kind, costs in measured.items()}
    quickest = Work(together, False, best.pop("right"), best.pop("wrong"), best, least)
    times = {kind: median(seconds for seconds, _ in costs) for kind, costs in measured.items()}
    return Work(together, False, times.pop("right"), times.pop("wrong"), times, least, quickest)


def _processor_work(together: int, measured: Costs) -> Work:
    times = {kind: min(computed for _, computed in costs) for kind, costs in measured.items()}
    return Work(together, True, times.pop("right"), times.pop("wrong"), times)


def _precise(together: int, measured: Costs) -> bool:
    """Whether processor times can be compared: they are the app's, and long beside what a response alone takes."""
    work = _processor_work(together, measured)
    return min(work.right, work.wrong) > HASHED * together and 0.3 < work.wrong / work.right < 3


async def _cost(app: App, email: str, password: str, together: int) -> tuple[float, float]:
    """Seconds, and seconds of the processor, until so many logins, sent at the same time, have their responses."""
    computed, began = _processor_time(app), time.perf_counter()
    await asyncio.gather(*(log_in(app, {"email": email}, password) for _ in range(together)))
    return time.perf_counter() - began, _processor_time(app) - computed


def _processor_time(app: App) -> float:
    """Seconds of the processor that the app's process has used, to a microsecond; 0 where the system does not tell.

    Linux has a clock for each process. Its number is made of the process's, as clock_getcpuclockid(3) makes it.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            return time.clock_gettime(~app.process.pid << 3 | 2)
    return 0.0
