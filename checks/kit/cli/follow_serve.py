"""Reads what a running `workbook serve` shows, for the page of `workbook view`."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable

from checks.kit.cli.served_database import find
from checks.kit.lessons.lesson import Lesson
from checks.kit.report.live import MAX_LINE_BYTES
from checks.kit.view.requests import Requests

LOOK_SECONDS = 1.0
"""How often we look whether `serve` runs, and whether the page shows another lesson."""


async def follow_serve(shown: Callable[[], Lesson], panel: Requests) -> None:
    """Shows the requests of the lesson that is shown, whenever its app is served."""
    while True:
        lesson = shown()
        served = await asyncio.to_thread(find, lesson)
        address = served.feed if served else ""
        panel.begins(lesson.number, bool(address))
        if address:
            with contextlib.suppress(OSError):  # it has just ended
                await _read(address, panel, lesson, shown)
            panel.begins(lesson.number, False)
        await asyncio.sleep(LOOK_SECONDS)


async def _read(address: str, panel: Requests, lesson: Lesson, shown: Callable[[], Lesson]) -> None:
    """Until the feed ends or another lesson is shown."""
    reader, writer = await asyncio.open_unix_connection(address, limit=MAX_LINE_BYTES)
    try:
        while shown().number == lesson.number:
            try:
                line = await asyncio.wait_for(reader.readline(), LOOK_SECONDS)
            except TimeoutError:
                continue
            if not line:
                return
            panel.hears(json.loads(line))
    finally:
        writer.close()
