"""`workbook watch` and `workbook serve` as a learner uses them: in a terminal of 80x24, and through a pipe."""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import httpx
import psutil
import ptyprocess
import pytest

from checks.kit.cli.screen import Lines
from checks.kit.cli.watch import Loop
from checks.kit.grading.pool import GraderPool
from checks.kit.lessons.lesson import find_lesson
from checks.kit.report.model import Outcome, Report, Result
from checks.self_test.commands import ENVIRON, WORKBOOK, free_port, read_until, workbook


@pytest.fixture
def checkout(folder: Path, copied: Callable[[Path], Path]) -> Iterator[Path]:
    """A checkout; afterwards nothing of it may be left running."""
    checkout = copied(folder / "bookshop")
    yield checkout
    deadline = time.monotonic() + 10
    while (left := left_of(checkout)) and time.monotonic() < deadline:
        time.sleep(0.02)  # they end without telling us; one that its parent has not taken note of counts as ended
    assert not left


def left_of(checkout: Path) -> list[psutil.Process]:
    """Living processes that belong to a checkout, PostgreSQL's included."""
    found = []
    for process in psutil.process_iter():
        try:
            mine = str(checkout) in " ".join(process.cmdline()) or process.cwd() == str(checkout)
        except psutil.Error:
            continue
        if mine and process.status() != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


class Terminal:
    """80 columns, 24 rows, and somebody who types."""

    def __init__(self, checkout: Path, *arguments: str) -> None:
        environ = ENVIRON | {"TERM": "xterm-256color"}
        self.process = ptyprocess.PtyProcess.spawn(
            [*WORKBOOK, *arguments], cwd=checkout, env=environ, dimensions=(24, 80)
        )
        self.seen = ""

    async def until(self, text: str) -> str:
        """What was printed since the last time, up to and with `text`; without colours and movements."""
        async with asyncio.timeout(150):
            while text not in (plain := re.sub(r"\x1b(\[[0-9;?]*[A-Za-z]|\][^\x1b]*\x1b\\)", "", self.seen)):
                self.seen += (await asyncio.to_thread(self.process.read, 65536)).decode(errors="replace")
        self.seen = ""
        return plain.replace("\r\n", "\n")

    def type(self, keys: str) -> None:
        self.process.write(keys.encode())


def solve(checkout: Path, name: str = "app") -> None:
    shutil.copytree(
        checkout / f"solutions/lesson_00/{name}", checkout / f"lessons/lesson_00/{name}", dirs_exist_ok=True
    )


KEYS = "q quit"


async def test_a_save_is_graded_and_keys_help(checkout: Path) -> None:
    terminal = Terminal(checkout, "watch", "0")
    red = await terminal.until(KEYS)
    assert "Why it matters" in red
    assert re.search(r"Lesson 00 · \d of 8 checks pass", red)
    assert max(len(line) for line in red.splitlines() if "/" not in line and "\r" not in line) <= 80
    terminal.type("h")
    assert "1. " in await terminal.until(KEYS)
    terminal.type("v")
    assert "Where to look" in await terminal.until(KEYS)
    terminal.type("d")
    assert "workbook diff 0 --peek" in await terminal.until(KEYS)
    terminal.type("c")
    assert "no tour" in await terminal.until(KEYS)
    main = checkout / "lessons/lesson_00/app/main.py"
    kept = main.read_text()
    main.write_text("def broken(:\n")
    assert "SyntaxError" in await terminal.until(KEYS)
    main.unlink()
    assert "0 of 8 checks pass" in await terminal.until(KEYS)
    main.write_text(kept)
    await terminal.until(KEYS)
    solve(checkout)
    with main.open("a") as file:  # what an app writes into its folder is no save
        file.write('\nopen("app.log", "a").write("started")\n')
    green = await terminal.until(KEYS)
    assert "8 of 8 checks pass" in green
    assert "Next: lessons/lesson_01/README.md" in green
    terminal.type("l")
    assert (await terminal.until(KEYS)).count("✓") == 8
    assert (checkout / "lessons/lesson_00/app.log").exists()
    terminal.process.setwinsize(40, 120)
    assert "8 of 8 checks pass" in await terminal.until(KEYS)
    terminal.type("x")
    await terminal.until("y/n")
    terminal.type("y")
    assert "as it was handed out" in await terminal.until(KEYS)
    assert (checkout / "lessons/lesson_00/app/main.py").read_text() == kept
    terminal.type("q")
    assert await asyncio.to_thread(terminal.process.wait) == 0


async def test_several_lessons_saved_at_once_do_not_move_watch_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    graded = []

    async def grade(loop: Loop) -> None:
        graded.append(loop._lesson.number)

    monkeypatch.setattr(Loop, "_grade", grade)
    loop = Loop(Lines(), cast(GraderPool, None), asyncio.Queue())
    loop._lesson = find_lesson(1)
    await loop._saved({"lesson_00", "lesson_02"})  # git, or a formatter
    await loop._saved({"lesson_01_backup"})
    assert graded == []
    await loop._saved({"lesson_00", "lesson_01"})
    await loop._saved({"lesson_02"})
    assert graded == [1, 2]


def test_what_passed_in_the_last_whole_run_is_remembered() -> None:
    lesson = find_lesson(1)
    first, second, third, *_ = [entry.name for entry in lesson.checks]
    loop = Loop(Lines(), cast(GraderPool, None), asyncio.Queue())
    loop._lesson = lesson
    loop._green = {lesson.name: {first, second}}
    outcomes = {first: Outcome.FAILED, second: Outcome.BLOCKED, third: Outcome.PASSED}
    results = [Result(name, name, outcome) for name, outcome in outcomes.items()]
    loop._live_report.report = Report(1, lesson.title, "lessons/lesson_01", results=results)
    loop._ended()
    assert loop._green == {lesson.name: {second, third}}  # one that did not run is as it was


@pytest.mark.slow
async def test_the_cost_is_shown_and_the_next_lesson_follows(checkout: Path) -> None:
    terminal = Terminal(checkout, "watch", "2")
    await terminal.until(KEYS)
    terminal.type("c")
    assert re.search(r"PATCH /books/1 +500 ", await terminal.until(KEYS))
    terminal.type("n")
    assert "lesson 03" in await terminal.until(KEYS)
    terminal.type("q")
    assert await asyncio.to_thread(terminal.process.wait) == 0


async def test_a_closed_terminal_leaves_nothing_behind(checkout: Path) -> None:
    terminal = Terminal(checkout, "watch", "0")
    await terminal.until("starting …")
    terminal.process.fileobj.close()  # SIGHUP, in the middle of everything
    await asyncio.to_thread(terminal.process.wait)


@pytest.mark.slow
async def test_a_database_that_died_is_started_again(checkout: Path) -> None:
    terminal = Terminal(checkout, "watch", "0")
    await terminal.until(KEYS)
    [pid_file] = checkout.glob(".workbook/**/postmaster.pid")
    postmaster = psutil.Process(int(pid_file.read_text().split()[0]))
    postmaster.send_signal(signal.SIGQUIT)
    await gone(postmaster)
    terminal.type("r")
    again = await terminal.until(KEYS)
    assert re.search(r"Lesson 00 · [1-7] of 8 checks pass", again)
    terminal.type("q")
    await asyncio.to_thread(terminal.process.wait)


async def gone(process: psutil.Process) -> None:
    """Returns when a process has ended, whether or not its parent has taken note of it."""
    async with asyncio.timeout(20):
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            await asyncio.sleep(0.02)


@pytest.mark.slow
async def test_through_a_pipe_there_are_plain_lines(checkout: Path) -> None:
    environ = ENVIRON | {"PYTHONUNBUFFERED": "1", "WORKBOOK_PLAIN": "1"}
    process = await asyncio.create_subprocess_exec(
        *WORKBOOK, "watch", "0", cwd=checkout, env=environ, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(150):
        printed = await read_until(process.stdout, "Open:")
        solve(checkout)
        printed += await read_until(process.stdout, "8 of 8 checks pass")
    assert "\x1b" not in printed
    assert "passed: " in printed
    assert "failed: " in printed
    assert not re.search("[✓✗─]", printed)
    process.send_signal(signal.SIGINT)
    await asyncio.wait_for(process.stdout.read(), 60)
    assert await process.wait() == 0


async def test_serve_starts_again_on_save_and_shows_the_log(checkout: Path) -> None:
    port = free_port()
    terminal = Terminal(checkout, "serve", "1", "--port", str(port))
    await terminal.until("/docs")
    book = {"isbn": "1234567890", "title": "T", "author_id": 1, "price_cents": 5}
    limits = httpx.Limits(max_keepalive_connections=0)  # the app fails behind an answer, and closes its connection
    client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30, limits=limits)
    async with client:
        await client.post("/books", json=book)
        await terminal.until("COMMIT")  # it comes behind the answer, on the session that the next request uses too
        await client.post("/books", json=book)
        await client.get("/books/1")
        seen = await terminal.until("PendingRollbackError")
        assert "duplicate key value" in seen
        main = checkout / "lessons/lesson_01/app/main.py"
        source = main.read_text()
        main.write_text("def broken(:\n")
        assert "app/main.py saved" in await terminal.until("again, or press Ctrl-C")
        main.write_text(source)
        await terminal.until("/docs")
        try:
            answer = await client.get("/books/1")
        except httpx.TransportError:  # the file system told of one write in two parts, and the app starts once more
            await terminal.until("/docs")
            answer = await client.get("/books/1")
        assert answer.status_code == 200
    terminal.type("\x03")
    await terminal.until("It left after")
    await asyncio.to_thread(terminal.process.wait)


@pytest.mark.slow
def test_the_fast_track_and_the_cost_of_a_lesson(checkout: Path) -> None:
    refused = workbook(checkout, "skip", "0")
    assert refused.returncode == 1
    assert "Not skipped" in refused.stdout
    assert re.search(r"✗ .*\n", workbook(checkout).stdout)  # the map tells the next lesson's checks
    solve(checkout)
    assert "Lesson 0 passes, so it counts as done." in workbook(checkout, "skip", "0").stdout
    assert "straight away" not in workbook(checkout).stdout  # there was a run before
    workbook(checkout, "reset", "0", "--yes")
    solve(checkout)
    assert "passed straight away" in workbook(checkout, "skip", "0").stdout
    assert re.search(r"✓ 00 .*straight away", workbook(checkout).stdout)
    cost = workbook(checkout, "cost", "3", "--target", "solutions")
    assert re.search(r"GET /customers/1/orders +200 +11 → 3 +13 → 5", cost.stdout), cost.stdout
    assert "no tour" in workbook(checkout, "cost", "0").stderr
