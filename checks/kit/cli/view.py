"""`workbook view` and `workbook watch --view`: the page in the browser, beside the terminal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any

from checks.kit.cli.browser import announce
from checks.kit.cli.follow_serve import follow_serve
from checks.kit.cli.screen import Lines, Page, Screen
from checks.kit.lessons.lesson import Lesson
from checks.kit.report.live import LiveReport
from checks.kit.report.model import Result
from checks.kit.report.next_step import next_step
from checks.kit.view.board import Ask, Board
from checks.kit.view.regions import Regions
from checks.kit.view.requests import Requests
from checks.kit.view.server import serving


class Brief(Lines):
    """The terminal of `workbook view`: a line for each grading, because the page says the rest."""

    def begins(self, lesson: Lesson, were_green: Collection[str]) -> None:
        return

    def result(self, live_report: LiveReport, result: Result) -> None:
        return

    def ended(self, live_report: LiveReport) -> None:
        if report := live_report.report:
            self.out.print(f"Lesson {report.lesson:02} · {report.tally()} · {next_step(report)}", soft_wrap=True)


@asynccontextmanager
async def page(
    lesson: Lesson, screen: Screen, events: asyncio.Queue[tuple[str, Any]], *, browser: bool
) -> AsyncIterator[Board]:
    """The page while the block lasts. What its buttons ask for is put into `events`; its address is printed."""
    regions = Regions()
    ask = Ask(
        grade=lambda: events.put_nowait(("grade", None)),
        open=lambda other: events.put_nowait(("open", other)),
    )
    board = Board(regions, ask)
    async with serving(regions, board.act, f"workbook view {lesson.number}") as address:
        announce(screen.out, address, browser=browser)
        if isinstance(screen, Page):
            screen.address = f"The page: {address}"
        following = asyncio.create_task(follow_serve(lambda: board.lesson or lesson, Requests(regions)))
        try:
            yield board
        finally:
            following.cancel()
