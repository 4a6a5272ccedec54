"""The requests of `workbook serve` on the page of `workbook view`: what belongs to which, and how it gets there."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from checks.kit.cli.follow_serve import _read
from checks.kit.cli.serve_feed import Feed
from checks.kit.lessons.lesson import find_lesson
from checks.kit.view.regions import Regions
from checks.kit.view.requests import MAX_REQUESTS, Requests
from checks.kit.wire.statements import ServerError, Statement

HOSTILE = "<script>alert(1)</script>\x1b[31m"


def statement(text: str, began: float, ended: float, process: str = "app", **more: Any) -> dict[str, Any]:
    described = {"text": text, "connection": 3, "process": process, "result": "ok", "failed": False}
    return {"event": "statement", "began": began, "ended": ended, **described, **more}


def request(number: int, at: float, **what: Any) -> dict[str, Any]:
    return {"event": "request", "id": number, "at": at, **what}


def panel() -> tuple[Requests, dict[str, str]]:
    regions = Regions()
    made = Requests(regions)
    made.begins(1, True)
    made.hears({"event": "starts"})
    return made, regions._html


async def test_statements_are_shown_with_the_request_that_was_under_way() -> None:
    made, html = panel()
    made.hears(statement("SELECT 'at the start'", 0.5, 0.6))
    made.hears(request(1, 1.0, request="POST /orders"))
    made.hears(statement("INSERT INTO orders", 1.1, 1.2))
    made.hears(request(1, 1.3, status=201))
    made.hears(request(1, 1.5, error=""))
    made.hears(statement("COMMIT", 1.4, 1.6))  # PostgreSQL responded when the request was over
    made.hears(statement("SELECT 'mail'", 1.1, 1.2, "app.worker"))
    made.draw()
    first = html["request:1-1"]
    assert "INSERT INTO orders" in first
    assert "COMMIT" in first
    assert "2 statements, 300 ms" in first
    assert "mail" not in first
    assert "at the start" not in first
    assert "Other requests" not in first
    outside = [text for text in html.values() if "Outside of a request" in text]
    assert ["mail" in text for text in outside] == [True, False]  # newest first
    assert "at the start" in outside[1]


async def test_requests_at_the_same_time_say_so() -> None:
    made, html = panel()
    made.hears(request(1, 1.0, request="GET /a"))
    made.hears(request(2, 1.1, request="GET /b"))
    made.hears(statement("SELECT 1", 1.2, 1.3))
    made.draw()
    for key in ("1-1", "1-2"):
        assert "Other requests were under way" in html[f"request:{key}"]
        assert "SELECT 1" in html[f"request:{key}"]
        assert "no response yet" in html[f"request:{key}"]
    made.hears({"event": "starts"})  # a save; the numbers begin anew
    made.hears(request(1, 2.0, request="GET /c"))
    made.hears(request(1, 2.1, status=500))
    made.hears(request(1, 2.2, error="ValueError: x"))
    made.draw()
    assert "no response<" in html["request:1-1"]
    assert "ValueError: x" in html["request:2-1"]
    assert "Nothing crossed the wire" in html["request:2-1"]


async def test_what_an_app_wrote_is_text_and_there_is_an_end() -> None:
    made, html = panel()
    for number in range(3 * MAX_REQUESTS):
        made.hears(request(number, number + 1.0, request=f"GET /{HOSTILE}"))
        made.hears(statement(HOSTILE, number + 1.1, number + 1.2, HOSTILE, result=HOSTILE, failed=True))
        made.hears({"event": "call", "text": HOSTILE, "began": number + 1.1, "ended": None, "result": HOSTILE})
        made.hears(request(number, number + 1.3, error=HOSTILE))
    made.draw()
    assert len([name for name in html if name.startswith("request:")]) == MAX_REQUESTS
    assert not [text for text in html.values() if "<script" in text or "\x1b" in text]
    made.begins(1, False)
    made.draw()
    assert "has ended" in html["requests"]
    made.begins(2, False)
    made.draw()
    assert "workbook serve 2" in html["requests"]
    assert not [name for name in html if name.startswith("request:")]


async def test_a_feed_tells_what_was_before_and_what_comes(folder: Path) -> None:
    feed, heard = Feed(folder), asyncio.Queue[dict[str, Any]]()
    address = await feed.open(folder / "feed.sock")
    feed.starts()
    feed.request_event({"debugger": "waits"})
    feed.request_event({"id": 1, "at": 1.0, "request": "GET /a"})
    lesson = find_lesson(1)
    reading = asyncio.create_task(
        _read(address, cast(Requests, SimpleNamespace(hears=heard.put_nowait)), lesson, lambda: lesson)
    )
    async with asyncio.timeout(60):
        assert (await heard.get())["event"] == "starts"
        assert (await heard.get())["request"] == "GET /a"
        feed.statement_done(Statement(4, "select pg_catalog.version()", 1.0, finished=1.1))  # the driver's own
        failed = ServerError("23505", "duplicate")
        feed.statement_done(Statement(4, "INSERT\n INTO books", 1.0, finished=1.1, error=failed, process="app (2)"))
        told = await heard.get()
        assert (told["text"], told["result"], told["process"]) == ("INSERT INTO books", "23505: duplicate", "app")
        feed.request_event({"id": 1, "at": 2.0, "error": "Traceback (most recent call last):\nValueError: x"})
        assert "ValueError: x" in (await heard.get())["error"]
        feed.close()
        await reading
