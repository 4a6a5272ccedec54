"""Holds every lesson to what its lesson.toml promises: `workbook dev verify`.

The lesson as handed out fails exactly the checks that it declares, the solution passes all, and every
variant is judged as its name says. Apps are graded in parallel, from warm processes.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from checks.kit.authoring.cases import Case, cases
from checks.kit.authoring.durations import Durations
from checks.kit.authoring.paper import headings, sections
from checks.kit.grading.pool import graders
from checks.kit.grading.scheduler import AMONG_OTHERS
from checks.kit.lessons.lesson import Lesson
from checks.kit.lessons.paths import STATE

LIMIT = 900
"""Seconds after which grading one app counts as hung; a bound for failures."""


@dataclass(slots=True)
class Outcome:
    """What grading a case showed. `wrong` is empty where the promise held; `log` is what pytest printed."""

    case: Case
    wrong: list[str]
    seconds: float
    log: str = ""
    results: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run has come; `seconds_left` is a guess from the run before and from the pace of this one."""

    done: int
    total: int
    seconds_left: float


Tell = Callable[[Outcome, Progress], None]


def verify(
    chosen: list[Lesson],
    jobs: int,
    tell: Tell = lambda outcome, progress: None,
    holds: Callable[[Case], bool] = bool,
    *,
    quick: bool = False,
) -> list[Outcome]:
    """Grades the cases of the lessons for which `holds` is true; `tell` is called as each one ends.

    With `quick` a wrong variant runs only the checks that it must fail: whether others pass is not looked at.
    """
    with tempfile.TemporaryDirectory(prefix="verify-") as folder:
        scratch = Path(folder)
        durations = Durations()
        todo = durations.longest_first(case for lesson in chosen for case in cases(lesson, scratch) if holds(case))
        left = {case.key: durations.expected(case) for case in todo}
        whole, began = sum(left.values()), time.perf_counter()
        outcomes: list[Outcome] = []

        def graded(case: Case, seconds: float, printed: str, results: list[dict[str, Any]]) -> None:
            outcome = Outcome(case, judge(case, results, quick=quick), seconds, printed, results)
            outcomes.append(outcome)
            if not quick:
                durations.keep(case, seconds)
            del left[case.key]
            rest = sum(left.values())
            # seconds of this run for each that was expected: a busy machine takes longer, and several go on at once
            pace = (time.perf_counter() - began) / (whole - rest)
            tell(outcome, Progress(len(outcomes), len(todo), rest * pace))

        if todo:
            asyncio.run(_grade_all(todo, jobs, scratch, graded, quick=quick))
            durations.save()
        return outcomes


def judge(case: Case, results: list[dict[str, Any]], *, quick: bool = False) -> list[str]:
    """In which ways the results of a case break its promise; `quick` as in `verify`."""
    if not results:
        return ["was not graded to the end"]
    seen = {result["name"]: result["outcome"] for result in results}
    declared = {entry.name for entry in case.lesson.checks}
    if quick and case.is_wrong:
        declared &= seen.keys()
    wrong = [f"lesson.toml does not list {name}" for name in seen.keys() - declared]
    wrong += [f"lesson.toml lists {name}, which does not exist" for name in declared - seen.keys()]
    wrong += [
        f"{name} must fail, but {outcome}"
        for name, outcome in seen.items()
        if name in case.fails and outcome in ("passed", "error")  # one that was blocked did not pass; that will do
    ]
    wrong += [
        f"{name} must pass, but {outcome}"
        for name, outcome in seen.items()
        if name not in case.fails and outcome != "passed"
    ]
    wrong += [f"{name} is to fail, but is not a check" for name in case.fails - seen.keys()]
    named = {result["finding"]["section"] for result in results if result["finding"] and result["finding"]["section"]}
    lost = named - headings(case.lesson) - set(sections(case.lesson))  # the list of what is to do has the latter
    return wrong + [f"a verdict sends the reader to “{name}”, no heading of the notebook" for name in sorted(lost)]


Graded = Callable[[Case, float, str, list[dict[str, Any]]], None]


async def _grade_all(todo: list[Case], jobs: int, scratch: Path, graded: Graded, *, quick: bool) -> None:
    async with graders() as warm:
        room = _Room(jobs * AMONG_OTHERS)

        async def grade(number: int, case: Case) -> None:
            async with room.taken(_at_once(case, quick=quick)):
                began = time.perf_counter()
                report, log = scratch / f"{number}.json", scratch / f"{number}.log"
                await asyncio.to_thread(case.write)
                process = await warm.start(*_arguments(case, report, quick=quick), log=log)
                try:
                    async with asyncio.timeout(LIMIT):
                        await asyncio.shield(process.exit)
                except TimeoutError:
                    pass  # judged as not graded to the end
                finally:
                    process.kill()
                    case.remove()
                seconds = time.perf_counter() - began
                graded(case, seconds, log.read_text(encoding="utf-8", errors="replace"), _results(report))

        async with asyncio.TaskGroup() as tasks:
            for number, case in enumerate(todo):
                tasks.create_task(grade(number, case))


class _Room:
    """For so many checks at a time; apps enter in the order in which they come."""

    def __init__(self, checks: int) -> None:
        self._free = asyncio.Semaphore(checks)
        self._first = asyncio.Lock()

    @asynccontextmanager
    async def taken(self, checks: int) -> AsyncIterator[None]:
        """Returns once there is room for the checks of an app, which leave it with the block."""
        async with self._first:
            for _ in range(checks):
                await self._free.acquire()
        try:
            yield
        finally:
            for _ in range(checks):
                self._free.release()


def _at_once(case: Case, *, quick: bool) -> int:
    """How many checks of a case run at a time: one that must fail few checks leaves room for others."""
    return min(AMONG_OTHERS, len(case.fails)) if quick and case.is_wrong else AMONG_OTHERS


def _arguments(case: Case, report: Path, *, quick: bool) -> list[str]:
    arguments = [str(case.lesson.checks_folder), "--target", str(case.folder), "--report-json", str(report)]
    if quick and case.is_wrong:
        arguments += ["-k", " or ".join(sorted(case.fails))]
    return [*arguments, "--at-once", str(AMONG_OTHERS), "-p", "no:cacheprovider", "-v"]


def _results(report: Path) -> list[dict[str, Any]]:
    try:
        reports = json.loads(report.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return []
    return list(reports[0]["results"]) if reports else []


def keep_logs(outcomes: list[Outcome]) -> Path | None:
    """Writes what pytest printed for each case that broke its promise; None if all held."""
    folder = STATE / "verify"
    shutil.rmtree(folder, ignore_errors=True)
    broken = [outcome for outcome in outcomes if outcome.wrong]
    for outcome in broken:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{outcome.case.lesson.name}-{outcome.case.label.replace(' ', '_')}.log"
        (folder / name).write_text(outcome.log, encoding="utf-8")
    return folder if broken else None
