"""`workbook cost`: a lesson's tour as it was handed out and as it is now, side by side."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from checks.kit.catalogue import CatalogueError, Lesson
from checks.kit.cli.files import handed_out
from checks.kit.cost import Cost, tour
from checks.kit.report import terminal
from checks.kit.run import Run
from checks.kit.targets import shown

if TYPE_CHECKING:
    from rich.console import Console


def cost(lesson: Lesson, folder: Path) -> None:
    out = terminal.console()
    out.print(f"Lesson {lesson.number:02} · {lesson.title}: what each request costs on the wire", style="bold")
    out.print(f"as it was handed out → {shown(folder)}\n", style="dim", soft_wrap=True)
    show(out, *asyncio.run(measure(lesson, folder)))


async def measure(
    lesson: Lesson, folder: Path, environ: Mapping[str, str] = os.environ
) -> tuple[list[Cost], list[Cost]]:
    """The costs of the lesson as it was handed out, and of `folder`."""
    if not lesson.tour:
        raise CatalogueError(f"Lesson {lesson.number} has no tour: it is not about what a request costs.")
    run = Run(environ)
    try:
        with tempfile.TemporaryDirectory(prefix="handed-out-") as scratch:
            for name, content in handed_out(lesson).items():
                path = Path(scratch) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            before, after = await asyncio.gather(tour(run, lesson, Path(scratch)), tour(run, lesson, folder))
        await run.aclose()
        return before, after
    finally:
        run.close()


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
