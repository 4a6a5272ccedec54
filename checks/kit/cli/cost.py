"""`workbook cost`: a lesson's tour as it was handed out and as it is now, side by side."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Coroutine, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checks.kit.lessons.errors import WorkbookError
from checks.kit.lessons.lesson import Lesson
from checks.kit.lessons.original import handed_out
from checks.kit.lessons.patches import write_tree
from checks.kit.lessons.paths import display_path
from checks.kit.report import terminal
from checks.kit.testbed.cost import Cost, cost_requests
from checks.kit.testbed.runtime import Runtime

if TYPE_CHECKING:
    from rich.console import Console


def cost(lesson: Lesson, folder: Path) -> None:
    out = terminal.console()
    out.print(f"Lesson {lesson.number:02} · {lesson.title}: what each request costs on the wire", style="bold")
    out.print(f"as it was handed out → {display_path(folder)}\n", style="dim", soft_wrap=True)
    show(out, *asyncio.run(measure(lesson, folder)))


async def measure(
    lesson: Lesson, folder: Path, environ: Mapping[str, str] = os.environ
) -> tuple[list[Cost], list[Cost]]:
    """The costs of the lesson as it was handed out, and of `folder`."""
    if not lesson.cost_requests:
        raise WorkbookError(f"Lesson {lesson.number} has no tour: it is not about what a request costs.")
    run = Runtime(environ)
    try:
        async with aclosing(run):
            with tempfile.TemporaryDirectory(prefix="handed-out-", dir=run.scratch) as scratch:
                write_tree(handed_out(lesson), Path(scratch))
                before, after = await _both(
                    cost_requests(run, lesson, Path(scratch)), cost_requests(run, lesson, folder)
                )
                return before, after
    finally:
        run.close()


async def _both(*tours: Coroutine[Any, Any, list[Cost]]) -> list[list[Cost]]:
    """The results of all; when one fails, the others have cleaned up before its exception is raised.

    They share a launcher: if it were closed under one that goes on, that one would wait forever for its app to end.
    """
    tasks = [asyncio.ensure_future(tour) for tour in tours]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def show(out: Console, before: list[Cost], after: list[Cost]) -> None:
    """A row for each request: before → after."""
    width = max(len(cost.request) for cost in after) + 2
    out.print(f"  {'':<{width}}{'status':>11}{'statements':>13}{'round trips':>13}{'rows':>13}", style="dim")
    for old, new in zip(before, after, strict=True):
        cells = (
            (old.status, new.status, 11),
            (old.statements, new.statements, 13),
            (old.round_trips, new.round_trips, 13),
            (old.rows, new.rows, 13),
        )
        row = "".join(f"{f'{a} → {b}' if a != b else str(b):>{room}}" for a, b, room in cells)
        out.print(f"  {new.request:<{width}}{row}", soft_wrap=True)
