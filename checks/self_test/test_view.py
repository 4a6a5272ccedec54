"""The page of `workbook view`: what it shows of a grading, and who may read and drive it."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from checks.kit.lessons.lesson import Lesson, find_lesson
from checks.kit.lessons.progress import Progress
from checks.kit.report.live import LiveReport
from checks.kit.report.model import Finding, Outcome, Place, Report, Result
from checks.kit.testbed.evidence import Evidence, Line
from checks.kit.view.board import Ask, Board
from checks.kit.view.regions import Regions
from checks.kit.view.server import serving

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\x1b[31m\u202e"


class Page:
    """A board on which nobody looks yet; `html` is what each region shows, `asked` what its buttons asked for."""

    def __init__(self) -> None:
        self.regions = Regions()
        self.asked: list[str] = []
        grade, open_lesson = (lambda: self.asked.append("grade")), (lambda lesson: self.asked.append(lesson.name))
        self.board = Board(self.regions, Ask(grade, open_lesson))

    @property
    def html(self) -> dict[str, str]:
        return self.regions._html


def live(lesson: Lesson, *results: Result) -> LiveReport:
    report = LiveReport()
    report.report = Report(lesson.number, lesson.title, "lessons/lesson_01", "notebooks/lesson_01.ipynb")
    report.report.results = list(results)
    return report


def failed(lesson: Lesson, text: str = "It broke.") -> Result:
    """The first check, failed, with this text in each field that a learner's app may fill."""
    name = lesson.checks[0].name
    return Result(
        name, lesson.titles[name], Outcome.FAILED, Finding(text, text, text), [f"{text}\n{text}"],
        [Evidence(text, [Line(text, text, text)])], [Place(text, 1, text, text)], text,
    )  # fmt: skip


def test_what_an_app_wrote_is_shown_as_text() -> None:
    page, lesson = Page(), find_lesson(1)
    page.board.begins(lesson, ())
    result = failed(lesson, HOSTILE)
    page.board.result(live(lesson, result), result)
    page.board.ended(live(lesson, result))
    page.board.broke(HOSTILE)
    page.board.notice(HOSTILE)
    for html in page.html.values():
        assert "<script" not in html
        assert "<img" not in html
        assert "\x1b" not in html
        assert "\u202e" not in html
    assert page.html[f"check:{result.name}"].count("&lt;script&gt;") >= 10
    assert "&lt;script&gt;" in page.html["head"]


def test_a_verdict_stays_until_the_next_one_is_known() -> None:
    page, lesson = Page(), find_lesson(1)
    page.board.begins(lesson, ())
    red = failed(lesson)
    region = f"check:{red.name}"
    assert "Not yet" in page.html[region]
    page.board.result(live(lesson, red), red)
    assert "It broke." in page.html[region]
    page.board.begins(lesson, {red.name})
    assert "It broke." in page.html[region]
    assert "from the last run" in page.html[region]
    green = Result(red.name, red.title)
    page.board.result(live(lesson, green), green)
    assert "It broke." not in page.html[region]
    assert "Now passes: " in page.html["said"]
    other = find_lesson(2)
    page.board.begins(other, ())
    assert region not in page.html
    assert [name for name in page.html if name.startswith("check:")] == [f"check:{each.name}" for each in other.checks]


def test_buttons_ask_for_what_there_is() -> None:
    page = Page()
    page.board.begins(find_lesson(1), ())
    assert page.board.act("run")
    assert page.board.act("lesson/3")
    assert page.asked == ["grade", "lesson_03"]
    for nothing in ("", "reset", "lesson/99", "lesson/../../etc", "hint/test_nothing"):
        assert not page.board.act(nothing)


def test_hints_come_one_at_a_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Progress.__init__, "__defaults__", (tmp_path / "progress.json",))
    page, lesson = Page(), find_lesson(1)
    name = next(iter(lesson.hints))
    page.board.begins(lesson, ())
    red = Result(name, lesson.titles[name], Outcome.FAILED, Finding("x", "y"))
    page.board.result(live(lesson, red), red)
    region = f"check:{name}"
    for number in range(len(lesson.hints[name])):
        assert page.html[region].count('<li class="words">') == number
        assert f"({len(lesson.hints[name]) - number} left)" in page.html[region]
        assert page.board.act(f"hint/{name}")
    assert "left)" not in page.html[region]
    assert page.board.act(f"hint/{name}")
    assert Progress().hints(lesson.name, name) == len(lesson.hints[name])


def test_the_solution_is_shown_when_the_lesson_passes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Progress.__init__, "__defaults__", (tmp_path / "progress.json",))
    page, lesson = Page(), find_lesson(1)
    page.board.begins(lesson, ())
    assert "when the lesson passes" in page.html["solution"]
    assert "+++" not in page.html["solution"]
    Progress().record_run(lesson.name, {entry.name: "passed" for entry in lesson.checks})
    page.board.ended(live(lesson))
    assert "+++ solution/app/" in page.html["solution"]
    assert f"{len(lesson.checks)} of {len(lesson.checks)} pass" in page.html["map"]


@asynccontextmanager
async def served(acted: list[str]) -> AsyncIterator[tuple[Regions, httpx.AsyncClient, str]]:
    """The page of a server, a client for it, and the origin that the page has in a browser."""
    regions = Regions()

    def act(action: str) -> bool:
        acted.append(action)
        return action == "run"

    async with (
        httpx.AsyncClient(trust_env=False, timeout=30) as client,  # it is there for longer than the server
        serving(regions, act, "workbook view 1") as address,
    ):
        client.base_url = httpx.URL(address)
        yield regions, client, address[: address.index("/", 8)]


async def test_the_page_is_for_those_who_have_its_address() -> None:
    acted: list[str] = []
    async with served(acted) as (_, client, origin):
        page = await client.get("")
        assert page.status_code == 200
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert "unsafe" not in page.headers["content-security-policy"]
        assert page.headers["referrer-policy"] == "no-referrer"
        assert (await client.get("static/view.js")).status_code == 200
        assert (await client.get("static/../guard.py")).status_code in (403, 404)
        port = origin.rpartition(":")[2]
        for path in ("/", "/x/", "/static/view.js", f"/{'x' * 22}/events"):
            assert (await client.get(f"{origin}{path}")).status_code == 403
        for host in (f"evil.example:{port}", "evil.example", f"127.0.0.1.evil.example:{port}", f"bookshop:{port}", ""):
            assert (await client.get("", headers={"Host": host})).status_code == 403
        for host in (f"localhost:{port}", "localhost:9999"):  # an editor may forward another port to ours
            assert (await client.get("", headers={"Host": host})).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "null"},
        {"Origin": "http://evil.example"},
        {"Origin": "http://127.0.0.1:8000"},
        {"Origin": "https://127.0.0.1"},
    ],
)
async def test_another_page_cannot_press_a_button(headers: dict[str, str]) -> None:
    acted: list[str] = []
    async with served(acted) as (_, client, origin):
        assert (await client.post("do/run", headers=headers)).status_code == 403
        assert (await client.get("do/run", headers=headers)).status_code in (403, 405)
        assert acted == []
        assert (await client.post("do/run", headers={"Origin": origin})).status_code == 204
        assert (await client.post("do/other", headers={"Origin": origin})).status_code == 404
        assert acted == ["run", "other"]
        for site in ("cross-site", "same-site"):
            asked = {"Origin": origin, "Sec-Fetch-Site": site, "Sec-Fetch-Mode": "cors"}
            assert (await client.post("do/run", headers=asked)).status_code == 403
            assert (
                await client.get("static/view.js", headers=asked | {"Sec-Fetch-Mode": "no-cors"})
            ).status_code == 403


async def test_changes_arrive_and_the_stream_ends_with_the_command() -> None:
    seen: list[dict[str, str]] = []
    ended = asyncio.Event()
    async with asyncio.timeout(60):
        async with served([]) as (regions, client, _):
            regions.set("head", "one\ntwo")
            regions.set("checks", "<ol></ol>")

            async def follow() -> None:
                async with client.stream("GET", "events") as response:
                    async for line in response.aiter_lines():
                        if line.startswith("data: "):
                            seen.append(json.loads(line.removeprefix("data: ")))
                            if len(seen) == 2:
                                regions.set("head", "three")
                            if len(seen) == 3:
                                ended.set()

            following = asyncio.create_task(follow())
            await ended.wait()
            regions.close()
            await following
    assert [(each["name"], each["html"]) for each in seen] == [
        ("head", "one\ntwo"),
        ("checks", "<ol></ol>"),
        ("head", "three"),
    ]


async def test_a_browser_that_is_opened_at_once_is_not_refused() -> None:
    async with serving(Regions(), lambda action: False, "workbook view 1") as address:
        host, port = httpx.URL(address).host, httpx.URL(address).port
        with socket.create_connection((host, port or 0), timeout=10):  # before the server had a turn
            pass


async def test_a_slow_browser_gets_the_newest() -> None:
    regions = Regions()
    changes: Any = regions.follow()
    regions.set("head", "0")
    assert await anext(changes) == ("head", "0")
    for number in range(1000):
        regions.set("head", str(number))
    assert await anext(changes) == ("head", "999")
    regions.close()
    with pytest.raises(StopAsyncIteration):
        await anext(changes)
