"""`workbook watch` and `workbook serve` as a learner uses them: in a terminal of 80x24, and through a pipe."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import ptyprocess
import pytest

CODE = "import sys; sys.path.insert(0, '.'); sys.argv[0] = 'workbook'; from checks.kit.cli import main; main()"
ENVIRON = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "COLUMNS", "LINES")}


@pytest.fixture
def checkout(folder: Path, copied: Callable[[Path], Path]) -> Iterator[Path]:
    """A checkout; afterwards nothing of it may be left running."""
    checkout = copied(folder / "bookshop")
    yield checkout
    psutil.wait_procs(left_of(checkout), timeout=10)
    assert not left_of(checkout)


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
        command = [sys.executable, "-c", CODE, *arguments]
        self.process = ptyprocess.PtyProcess.spawn(command, cwd=checkout, env=environ, dimensions=(24, 80))
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
    green = await terminal.until(KEYS)
    assert "8 of 8 checks pass" in green
    assert "Next: lessons/lesson_01/README.md" in green
    terminal.type("l")
    assert (await terminal.until(KEYS)).count("✓") == 8
    terminal.process.setwinsize(40, 120)
    assert "8 of 8 checks pass" in await terminal.until(KEYS)
    terminal.type("x")
    await terminal.until("y/n")
    terminal.type("y")
    assert "as it was handed out" in await terminal.until(KEYS)
    assert (checkout / "lessons/lesson_00/app/main.py").read_text() == kept
    terminal.type("q")
    assert await asyncio.to_thread(terminal.process.wait) == 0


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


async def test_a_database_that_died_is_started_again(checkout: Path) -> None:
    terminal = Terminal(checkout, "watch", "0")
    await terminal.until(KEYS)
    [pid_file] = checkout.glob(".workbook/**/postmaster.pid")
    postmaster = psutil.Process(int(pid_file.read_text().split()[0]))
    postmaster.send_signal(signal.SIGQUIT)
    psutil.wait_procs([postmaster], timeout=20)
    terminal.type("r")
    again = await terminal.until(KEYS)
    assert re.search(r"Lesson 00 · [1-7] of 8 checks pass", again)
    terminal.type("q")
    await asyncio.to_thread(terminal.process.wait)


async def test_through_a_pipe_there_are_plain_lines(checkout: Path) -> None:
    environ = ENVIRON | {"PYTHONUNBUFFERED": "1", "WORKBOOK_PLAIN": "1"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CODE, "watch", "0", cwd=checkout, env=environ, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    printed = ""
    async with asyncio.timeout(150):
        while "Open:" not in printed:
            printed += (await process.stdout.readline()).decode()
        solve(checkout)
        while "8 of 8 checks pass" not in printed:
            printed += (await process.stdout.readline()).decode()
    assert "\x1b" not in printed
    assert "passed: " in printed
    assert "failed: " in printed
    assert not re.search("[✓✗─]", printed)
    process.send_signal(signal.SIGINT)
    await asyncio.wait_for(process.stdout.read(), 60)
    assert await process.wait() == 0


async def test_serve_starts_again_on_save_and_shows_the_log(checkout: Path) -> None:
    terminal = Terminal(checkout, "serve", "1", "--port", "18971")
    await terminal.until("/docs")
    book = {"isbn": "1234567890", "title": "T", "author_id": 1, "price_cents": 5}
    limits = httpx.Limits(max_keepalive_connections=0)  # the app fails behind an answer, and closes its connection
    client = httpx.AsyncClient(base_url="http://127.0.0.1:18971", trust_env=False, timeout=30, limits=limits)
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


def test_the_fast_track_and_the_cost_of_a_lesson(checkout: Path) -> None:
    def workbook(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", CODE, *arguments]
        environ = ENVIRON | {"COLUMNS": "80"}
        return subprocess.run(command, cwd=checkout, env=environ, capture_output=True, text=True, timeout=150)

    refused = workbook("skip", "0")
    assert refused.returncode == 1
    assert "Not skipped" in refused.stdout
    assert re.search(r"✗ .*\n", workbook().stdout)  # the map tells the next lesson's checks
    solve(checkout)
    assert "passed straight away" in workbook("skip", "0").stdout
    assert re.search(r"✓ 00 .*straight away", workbook().stdout)
    cost = workbook("cost", "3", "--target", "solutions")
    assert re.search(r"GET /customers/1/orders +200 +11 → 2 +13 → 4", cost.stdout), cost.stdout
    assert "no tour" in workbook("cost", "0").stderr
