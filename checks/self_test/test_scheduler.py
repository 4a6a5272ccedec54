"""Which checks run when, what blocks them, and what a check may ask for."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from checks.kit.grading.scheduler import ScheduledCheck, Scheduler
from checks.kit.lessons.errors import WorkbookError
from checks.kit.lessons.paths import ROOT
from checks.kit.report.model import Outcome, Result
from checks.kit.testbed import fixtures

FAILS = {"outcome": Outcome.FAILED}
AT_ONCE = 3
"""Checks that these schedulers run at the same time."""

DOES_NOT_START = {"outcome": Outcome.FAILED, "blocks_lesson": True}


class Checks:
    """Scheduled checks 0, 1, 2 ... that say when they start, and end when they are told to."""

    def __init__(
        self,
        count: int,
        *,
        serial: tuple[int, ...] = (),
        start_early: tuple[int, ...] = (),
        needs: Mapping[int, int] | None = None,
        lessons: Mapping[int, str] | None = None,
    ) -> None:
        self.started: list[int] = []
        self.cleaned_up: list[int] = []
        self._ends: list[asyncio.Future[Result]] = [asyncio.get_running_loop().create_future() for _ in range(count)]
        self.scheduler = Scheduler(
            [
                ScheduledCheck(
                    (lessons or {}).get(number, "lesson_01"),
                    Result(str(number), f"Title {number}"),
                    lambda number=number: self._run(number),
                    needs=[str((needs or {})[number])] if number in (needs or {}) else [],
                    serial=number in serial,
                    start_early=number in start_early,
                )
                for number in range(count)
            ],
            AT_ONCE,
        )

    async def _run(self, number: int) -> Result:
        self.started.append(number)
        try:
            return await self._ends[number]
        finally:
            self.cleaned_up.append(number)

    def end(self, *numbers: int, **fields: object) -> None:
        for number in numbers:
            self._ends[number].set_result(Result(str(number), f"Title {number}", **fields))  # type: ignore[arg-type]

    def next(self) -> asyncio.Task[Result]:
        return asyncio.create_task(self.scheduler.next_result())

    def all(self) -> asyncio.Task[list[Result]]:
        async def all() -> list[Result]:
            return [await self.scheduler.next_result() for _ in self._ends]

        return asyncio.create_task(all())

    async def until_started(self, *numbers: int) -> None:
        """Waits until exactly these have started, in this order, and nothing more starts."""
        async with asyncio.timeout(5):
            while self.started != list(numbers):
                await asyncio.sleep(0)
        await settled()
        assert self.started == list(numbers)


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_few_checks_run_at_once_and_their_results_come_in_order() -> None:
    checks = Checks(AT_ONCE + 2)
    first = checks.next()
    await checks.until_started(*range(AT_ONCE))
    checks.end(1)
    await checks.until_started(*range(AT_ONCE + 1))
    assert not first.done()
    checks.end(0)
    assert (await first).name == "0"
    assert (await checks.next()).name == "1"
    await checks.until_started(*range(AT_ONCE + 2))
    await checks.scheduler.close()


async def test_a_check_that_measures_time_runs_alone_and_last() -> None:
    checks = Checks(5, serial=(1, 2))
    results = checks.all()
    await checks.until_started(0, 3, 4)
    checks.end(0, 3)
    await checks.until_started(0, 3, 4)
    checks.end(4)
    await checks.until_started(0, 3, 4, 1)
    checks.end(1)
    await checks.until_started(0, 3, 4, 1, 2)
    checks.end(2)
    assert [result.name for result in await results] == ["0", "1", "2", "3", "4"]


async def test_checks_that_wait_long_start_right_after_the_first() -> None:
    checks = Checks(5, start_early=(3, 4))
    first = checks.next()
    await checks.until_started(0, 3, 4)
    checks.end(3)
    await checks.until_started(0, 3, 4, 1)
    first.cancel()
    await checks.scheduler.close()


async def test_the_check_asked_for_waits_until_it_has_room() -> None:
    early = range(2, AT_ONCE + 2)
    checks = Checks(AT_ONCE + 2, serial=(1,), start_early=tuple(early))
    first = checks.next()
    checks.end(0)
    assert (await first).name == "0"
    asked = checks.next()
    await checks.until_started(0, *early)
    checks.end(*early)
    await checks.until_started(0, *early, 1)
    checks.end(1)
    assert (await asked).name == "1"


async def test_a_check_starts_when_the_one_that_it_needs_has_passed() -> None:
    checks = Checks(4, needs={1: 0, 2: 3})
    results = checks.all()
    await checks.until_started(0, 3)
    checks.end(3)
    await checks.until_started(0, 3, 2)
    checks.end(0)
    await checks.until_started(0, 3, 2, 1)
    checks.end(1, 2)
    assert [result.name for result in await results] == ["0", "1", "2", "3"]


async def test_what_needs_a_check_that_did_not_pass_is_blocked_and_never_starts() -> None:
    checks = Checks(4, needs={1: 0, 2: 1})
    results = checks.all()
    await checks.until_started(0, 3)
    checks.end(0, **FAILS)
    checks.end(3)
    assert [(result.outcome, result.blocked_by) for result in await results] == [
        (Outcome.FAILED, ""),
        (Outcome.BLOCKED, "Title 0"),
        (Outcome.BLOCKED, "Title 1"),
        (Outcome.PASSED, ""),
    ]
    assert checks.started == [0, 3]


async def test_what_is_not_part_of_the_run_blocks_nothing() -> None:
    checks = Checks(2, needs={1: 7})
    results = checks.all()
    await checks.until_started(0, 1)
    checks.end(0, 1)
    assert {result.outcome for result in await results} == {Outcome.PASSED}


async def test_checks_that_need_each_other_are_refused() -> None:
    with pytest.raises(WorkbookError, match="need each other, so that none can run: 1, 2"):
        Checks(3, needs={1: 2, 2: 1})


async def test_an_app_that_does_not_start_blocks_the_rest_of_its_lesson() -> None:
    checks = Checks(6, lessons={5: "lesson_02"})
    collecting = checks.all()
    await checks.until_started(0, 1, 2)
    checks.end(1, **DOES_NOT_START)  # what comes before it goes on
    await checks.until_started(0, 1, 2, 5)
    assert checks.cleaned_up == [1, 2], "2 cannot say anything, so it is canceled"
    checks.end(0, 5)
    *results, other_lesson = await collecting
    assert [result.outcome for result in results] == [Outcome.PASSED, Outcome.FAILED, *[Outcome.BLOCKED] * 3]
    assert {result.blocked_by for result in results[2:]} == {"an app that starts"}
    assert other_lesson.outcome is Outcome.PASSED
    assert checks.started == [0, 1, 2, 5]


async def test_results_do_not_depend_on_which_check_ends_first() -> None:
    checks = Checks(4)
    results = checks.all()
    await checks.until_started(0, 1, 2)
    checks.end(2)
    checks.end(1, **DOES_NOT_START)
    await settled()
    checks.end(0, **DOES_NOT_START)
    assert [result.outcome for result in await results] == [Outcome.FAILED, *[Outcome.BLOCKED] * 3]


async def test_closing_cancels_what_runs_and_waits_until_it_has_cleaned_up() -> None:
    checks = Checks(AT_ONCE + 1)
    first = checks.next()
    await checks.until_started(*range(AT_ONCE))
    first.cancel()  # as Ctrl-C does
    await asyncio.wait({first})
    await settled()
    assert checks.cleaned_up == [], "the checks themselves go on until the scheduler is closed"
    await checks.scheduler.close()
    assert sorted(checks.cleaned_up) == list(range(AT_ONCE))
    assert sorted(checks.started) == list(range(AT_ONCE)), "and nothing new has started"


async def test_what_a_check_raises_reaches_whoever_waits() -> None:
    checks = Checks(2)
    first = checks.next()
    await checks.until_started(0, 1)
    checks._ends[1].set_exception(OSError("the machine"))
    with pytest.raises(OSError, match="the machine"):
        await first
    await checks.scheduler.close()
    assert sorted(checks.cleaned_up) == [0, 1]


def test_a_check_may_ask_for_fixtures_only() -> None:
    async def check(app: object, tap: object) -> None: ...

    with pytest.raises(fixtures.FixtureError, match=r"check asks for 'tap'\. A check may ask for: large, launch, wire"):
        fixtures.order(check, fixtures.FIXTURES)


@pytest.mark.parametrize(
    ("check", "said"),
    [
        (
            "async def test_typo(tap): ...",
            "test_typo asks for 'tap'. A check may ask for: large, launch, wire, pgbouncer, server_side, shop",
        ),
        (
            '@pytest.mark.needs("test_nothing")\nasync def test_more(app): ...',
            "test_more needs test_nothing, which is not a check of this lesson.",
        ),
        ("def test_plain(app): ...", "test_plain is not a check: write async def test_plain(app)."),
    ],
)
def test_what_is_no_check_is_refused_when_it_is_collected(
    copied: Callable[[Path], Path], tmp_path: Path, check: str, said: str
) -> None:
    checkout = copied(tmp_path / "checkout")
    file = checkout / "checks" / "lesson_00" / "test_start_and_stop.py"
    file.write_text(f"{file.read_text()}\n\n{check}\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "checks/lesson_00"], cwd=checkout, capture_output=True, text=True
    )
    assert done.returncode == pytest.ExitCode.INTERRUPTED
    assert said in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert "Interrupted" not in done.stdout


@pytest.mark.slow
def test_a_grader_imports_nothing_of_others_after_its_fork() -> None:
    """Whatever pytest and the kit import late belongs into `preload.LATE`, or each grading imports it anew."""
    program = """
import sys
import pytest
import checks.kit.grading.preload
before = set(sys.modules)
plugins = [sys.modules["pytest_asyncio.plugin"], sys.modules["checks.kit.grading.plugin"]]
code = pytest.main(["checks/lesson_00", "--target", "solutions", "-k", "health", "-p", "no:cacheprovider"], plugins)
late = {name for name in set(sys.modules) - before if name.partition(".")[0] not in sys.stdlib_module_names}
small = ("checks.lesson_00", "_pytest._argcomplete", "bookshop_workbook")
print(code.value, sorted(name for name in late if not name.startswith(small)))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "0 []", done.stdout + done.stderr


async def test_a_check_that_loses_its_cancellation_is_canceled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("checks.kit.grading.scheduler.ASK_AGAIN", 0.01)
    lost = []

    async def loses_one() -> Result:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            lost.append("canceled")
        await asyncio.Event().wait()
        raise AssertionError("nothing sets this event")

    scheduler = Scheduler([ScheduledCheck("lesson_01", Result("0", "Title"), loses_one)])
    waiting = asyncio.create_task(scheduler.next_result())
    await settled()
    await asyncio.wait_for(scheduler.close(), 30)
    waiting.cancel()
    assert lost == ["canceled"]
