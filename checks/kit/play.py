"""Plays one check, on a stage of its own, and turns what happened there into a result."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from checks.kit.catalogue import ROOT, Lesson, sentence
from checks.kit.parts import Check, cast
from checks.kit.postgres.errors import PostgresUnavailable
from checks.kit.report.model import STUMBLED, Crossing, Finding, Outcome, Refuted, Result
from checks.kit.report.places import places, tail
from checks.kit.service import AppDidNotStart, NoAnswer, UnexpectedAnswer
from checks.kit.stage import Stage

if TYPE_CHECKING:
    from checks.kit.run import Run
    from checks.kit.wire import Recording

CHECK_LIMIT = 60.0
"""Seconds after which a check counts as hung; a bound for failures, not a measurement."""

MOST_CROSSINGS, LONGEST_TEXT = 2_000, 2_000
"""Statements of a verdict, and characters of one or of what happened: whoever writes them may have no measure."""


@dataclass(frozen=True, slots=True)
class Played:
    """`error` is what ended the check, None if it passed."""

    result: Result
    error: Exception | None


def begun(check: Check) -> Result:
    """The result of a check of which nothing is known yet."""
    return Result(name=check.__name__, title=sentence(check.__doc__ or check.__name__))


async def play(check: Check, run: Run, lesson: Lesson, folder: Path) -> Played:
    """Plays `check` against the app in `folder`. Raises PostgresUnavailable."""
    result = begun(check)
    began = time.perf_counter()
    error = None
    try:
        async with Stage(run, lesson, folder) as stage:
            result.did = stage.did
            error = await _played(check, stage)
            if error is not None:
                _fail(result, error, stage)
    except PostgresUnavailable:
        raise
    except Exception as fault:  # the stage could not be set, or not be cleared
        error = error or fault
        fail(result, error)
    result.seconds = time.perf_counter() - began
    return Played(result, error)


async def _played(check: Check, stage: Stage) -> Exception | None:
    try:
        parts = await cast(check, stage)
        async with asyncio.timeout(CHECK_LIMIT):
            await check(**parts)
    except Exception as error:
        return error
    return None


def _fail(result: Result, error: Exception, stage: Stage) -> None:
    """With the evidence that lies on the stage."""
    fail(result, error)
    log = error.log if isinstance(error, AppDidNotStart) else stage.app.log if stage.app else stage.printed
    result.places = places(log, stage.folder, ROOT)
    if not result.places or isinstance(error, AppDidNotStart):
        result.log = tail(log, ROOT)
    result.wire = crossings(stage.seen)


def fail(result: Result, error: BaseException) -> None:
    finding = explain(error)
    result.outcome = Outcome.FAILED
    result.finding = replace(finding, happened=finding.happened[:LONGEST_TEXT])


def explain(error: BaseException) -> Finding:
    """A finding for whatever ended a check."""
    from checks.kit.wire import NeverArrived, NotSettled

    if isinstance(error, Refuted):
        return error.finding
    if isinstance(error, AppDidNotStart):
        return Finding(str(error), "Every other check needs a running app. The log below says what stopped it.")
    if isinstance(error, NoAnswer):
        return Finding(
            str(error), "A client that waits for ever is a client that is lost: find what the app waits for."
        )
    if isinstance(error, UnexpectedAnswer):
        return Finding(str(error), "The ticket says what this endpoint answers; other services read these fields.")
    if isinstance(error, NeverArrived):
        return Finding(str(error), "The check waits for this on the wire, and the app did something else instead.")
    if isinstance(error, NotSettled):
        return Finding(
            str(error),
            "A transaction that stays open keeps its locks and its connection, long after the client has gone.",
        )
    if isinstance(error, TimeoutError):
        return Finding("The check did not come to an end within a minute.", "Find what the app waits for.")
    return Finding(
        f"{STUMBLED}: {type(error).__name__}: {error}",
        "This is a fault of the check or of the machine, not of your code. Please report it with the lines above.",
    )


def crossings(seen: Recording | None) -> list[Crossing]:
    """The recorded statements for a reader: without the driver's own, connections counted from 1."""
    numbers: dict[int, int] = {}
    shown = []
    for statement in (seen.story if seen else [])[-MOST_CROSSINGS:]:
        number = numbers.setdefault(statement.connection, len(numbers) + 1)
        if statement.error:
            result = statement.error.message
        elif statement.finished is None:
            result = "no answer yet"
        else:
            result = f"{statement.rows} rows" if statement.rows else "ok"
        text = " ".join(statement.text[: 2 * LONGEST_TEXT].split())
        shown.append(Crossing(number, text[:LONGEST_TEXT], result[:LONGEST_TEXT]))
    return shown
