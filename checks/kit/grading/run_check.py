"""Runs one check on a testbed of its own, and turns what happened there into a result."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from checks.kit.grading.evidence import MAX_TEXT, logs_of, place_of_frames, places_in, sections
from checks.kit.lessons.lesson import Lesson, sentence
from checks.kit.postgres.errors import PostgresUnavailable
from checks.kit.report.model import CheckFailed, Finding, Outcome, Place, Result
from checks.kit.report.timeline import timeline
from checks.kit.service.app import AppDidNotStart, NoResponse, UnexpectedResponse
from checks.kit.service.launcher import ForkServerEnded
from checks.kit.service.machine import busy
from checks.kit.service.start_failure import how_it_ended
from checks.kit.testbed import fixtures
from checks.kit.testbed.schema import RowsDoNotFit, SchemaError
from checks.kit.testbed.testbed import Testbed

if TYPE_CHECKING:
    from checks.kit.testbed.runtime import Runtime

CHECK_TIMEOUT = 60.0
"""Seconds after which a check counts as hung; a bound for failures, not a measurement."""

PATIENCE = 3
"""How many times as long it may take where the machine is busy with other things."""

PATIENT = 10
"""How many times as long a check with the mark `patient` may take, on every machine."""


class Hung(Exception):
    """A check did not end."""


def new_result(check: fixtures.Check) -> Result:
    """The result of a check that has not run."""
    return Result(name=check.__name__, title=sentence(check.__doc__ or check.__name__))


async def run_check(check: fixtures.Check, runtime: Runtime, lesson: Lesson, folder: Path) -> Result:
    """Runs `check` against the app in `folder`. Whatever happens is in the result.

    Raises PostgresUnavailable, and ForkServerEnded where an app may have ended with its fork server.
    """
    result = new_result(check)
    began = time.perf_counter()
    try:
        async with Testbed(runtime, lesson, folder) as testbed:
            try:
                await _run(check, testbed, lesson, result)
            finally:
                result.steps = testbed.steps.rendered()
    except PostgresUnavailable:
        raise
    except Exception as error:  # the testbed could not be made, or not be cleared
        _record(result, error, folder)
    if runtime.lost_apps and result.outcome is not Outcome.PASSED:
        raise ForkServerEnded
    result.seconds = time.perf_counter() - began
    return result


async def _run(check: fixtures.Check, testbed: Testbed, lesson: Lesson, result: Result) -> None:
    """Sets up the fixtures, runs the check, tears them down; evidence is collected before they are torn down."""
    stack = fixtures.FixtureStack(testbed, fixtures.of_lesson(lesson.name))
    try:
        try:
            arguments = await stack.set_up(check)
            patient = any(mark.name == "patient" for mark in getattr(check, "pytestmark", ()))
            await _within(CHECK_TIMEOUT * (PATIENT if patient else PATIENCE if busy() else 1), check(**arguments))
        except (Exception, pytest.fail.Exception, pytest.skip.Exception) as error:  # pytest's own are no Exception
            _record(result, error, testbed.folder, testbed)
    finally:
        error_of_teardown = await stack.tear_down()
    if error_of_teardown is not None:
        _record(result, error_of_teardown, testbed.folder, testbed)


async def _within(seconds: float, checking: Awaitable[None]) -> None:
    """Raises Hung; a TimeoutError is that of a wait within the check."""
    bound = asyncio.timeout(seconds)
    try:
        async with bound:
            await checking
    except TimeoutError:
        if bound.expired():
            raise Hung(f"The check did not end within {seconds:.0f} s.") from None
        raise


def _record(result: Result, error: BaseException, folder: Path, testbed: Testbed | None = None) -> None:
    """Notes what ended the check, with the evidence that there is; only the first error counts."""
    if result.outcome is not Outcome.PASSED:
        return
    result.outcome, finding = explain(error)
    if result.outcome is Outcome.FAILED and testbed is not None:
        finding = replace(finding, happened=f"{finding.happened} {_ended(testbed, error)}".rstrip())
    result.finding = replace(finding, happened=finding.happened[:MAX_TEXT])
    result.blocks_lesson = isinstance(error, SchemaError) or (isinstance(error, AppDidNotStart) and error.is_app)
    logs = logs_of(error, testbed)
    endpoint = testbed.steps.endpoint_of(finding.happened) if testbed else ""
    edit, provoked = (testbed.lesson.edit, testbed.provoked) if testbed else ((), set[str]())
    result.places = places_in(logs, folder, endpoint, edit, provoked)
    if isinstance(error, SchemaError) and error.line:
        result.places = [Place(error.path, error.line, "", error.what)]
    elif isinstance(error, AppDidNotStart) and (busy := place_of_frames(error.frames, folder)):
        result.places = [busy]
    result.evidence = sections(testbed, logs, folder)
    if testbed is not None:
        result.timeline = timeline(testbed.seen, testbed.requests, testbed.events, time.perf_counter())


def _ended(testbed: Testbed, error: BaseException) -> str:
    """A sentence for each process beside the app that failed by itself, unless the error tells of it."""
    told = error.name if isinstance(error, AppDidNotStart) else ""
    return " ".join(
        f"{process.name} {how_it_ended(process.exit.result())} by itself."
        for process in testbed.background
        if process.failed and process.name != told
    )


def explain(error: BaseException) -> tuple[Outcome, Finding]:
    """An outcome and a finding for whatever ended a check."""
    from checks.kit.testbed.explain import NotExplained
    from checks.kit.testbed.invariants import DoesNotAddUp
    from checks.kit.testbed.outside_service import NeverCalled, UnexpectedCall
    from checks.kit.wire import NeverArrived, NotIdle

    waited = (NoResponse, NeverArrived, NeverCalled, NotIdle)
    if isinstance(error, CheckFailed):
        return Outcome.FAILED, error.finding
    if isinstance(error, AppDidNotStart):
        happened = str(error) if error.log.strip() else f"{error} It printed nothing."
        needed = "Every other check needs a running app." if error.is_app else "Nobody does its work until it runs."
        return Outcome.FAILED, Finding(happened, needed)
    because = {
        RowsDoNotFit: "The shop has rows like these already, so the migration fails in production, or the app does.",
        NotExplained: "The check counts the blocks that the app's statements touch, and here it cannot.",
        SchemaError: "No check can run without the tables. If you did not mean to change the script: git diff",
        NoResponse: "Customers give up on a page that does not load. Find out what the app waits for: the last "
        "statement on the wire tells.",
        UnexpectedResponse: "The ticket says what this endpoint returns; other services read these fields.",
        NeverArrived: "The check waited for this statement, and the app never sent it.",
        DoesNotAddUp: "Books that appear or disappear are sold twice or never. Money that does so is somebody's.",
        NeverCalled: "The check waited for this request to another service. Look at what was sent instead, and when.",
        UnexpectedCall: "The other service reads these fields. It refuses what it does not understand.",
        NotIdle: "A transaction that stays open keeps its locks and its connection until somebody ends the process.",
    }
    for kind, reason in because.items():
        if isinstance(error, kind):
            return Outcome.FAILED, Finding(str(error), f"{reason} {busy()}".rstrip() if kind in waited else reason)
    if isinstance(error, (Hung, TimeoutError)):
        happened = str(error) if isinstance(error, Hung) else "The check waited in vain for the app."
        return Outcome.FAILED, Finding(happened, f"Find out what the app waits for. {busy()}".rstrip())
    return Outcome.ERROR, Finding(
        f"The check ended with an error of its own: {type(error).__name__}: {error}",
        "This is a fault of the check or of this machine, not of your code. Please report it with the lines above.",
    )
