"""`workbook serve`: failures under their requests, a database that psql shares, breakpoints, an editor's debugger."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import re
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from checks.kit.cli.served_database import ServedDatabase, find, offer
from checks.kit.cli.tracebacks import fold
from checks.kit.lessons.lesson import find_lesson
from checks.kit.lessons.paths import ROOT
from checks.self_test.commands import ENVIRON, WORKBOOK, free_port, pytest_run, read_until, workbook

FAILING = """

@app.get("/statement")
async def statement(request: Request) -> None:
    from sqlalchemy import text

    async with request.state.sessions() as session:
        await session.execute(text("SELECT nonsense FROM books"))


@app.get("/stop")
def stop() -> int:
    found = 41 + 1
    breakpoint()
    return found
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A copy of solution 01 with paths that fail."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "solutions/lesson_01", tmp_path / "lesson_01", ignore=ignored)
    with (tmp_path / "lesson_01/app/main.py").open("a") as main:
        main.write(FAILING)
    return tmp_path


@asynccontextmanager
async def _serving(
    port: int, *arguments: str, checkout: Path = ROOT, last: list[str] | None = None
) -> AsyncIterator[asyncio.StreamReader]:
    """What `workbook serve 1` prints; it gets Ctrl-C at the end of the block. `last` gets what it prints then."""
    process = await asyncio.create_subprocess_exec(
        *WORKBOOK, "serve", "1", "--port", str(port), *arguments,
        cwd=checkout, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        env=ENVIRON | {"PYTHONUNBUFFERED": "1", "COLUMNS": "200"},
    )  # fmt: skip
    assert process.stdout is not None
    try:
        async with asyncio.timeout(120):
            yield process.stdout
            process.send_signal(signal.SIGINT)
            rest = await process.stdout.read()
            if last is not None:
                last.append(rest.decode())
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()


async def _get(port: int, path: str) -> int:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60) as client:
        return (await client.get(path)).status_code


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGINT to send")
async def test_a_failure_is_one_block_and_psql_sees_the_same_rows(mine: Path) -> None:
    port = free_port()
    async with _serving(port, "--target", str(mine)) as printed:
        assert "Its tables: workbook psql 1, or postgresql://" in await read_until(printed, "/docs")
        assert await _get(port, "/statement") == 500
        block = await read_until(printed, "--tracebacks")
        shown = block[block.index("← 500 GET /statement\n") :]
        assert 'column "nonsense" does not exist' in shown
        assert "lesson_01/app/main.py:" in shown
        assert 'await session.execute(text("SELECT nonsense FROM books"))' in shown
        assert "Traceback" not in block
        assert "site-packages" not in block
        assert await _get(port, "/stop") == 500
        stop = await read_until(printed, "--tracebacks")
        assert "→ GET /stop\n  nothing crossed the wire\n← 500 GET /stop\n" in stop
        assert "breakpoint() has no keyboard here. It works under `workbook serve 1` in a terminal" in stop
        sold = "UPDATE books SET title = 'Sold' WHERE id = 2 RETURNING 'the same';\n"
        done = await asyncio.to_thread(workbook, ROOT, "psql", "1", stdin=sold)
        assert "the database of `workbook serve 1`" in " ".join(done.stdout.split())
        assert await _get(port, "/books/2") == 200
        assert "UPDATE" not in await read_until(printed, "← 200 GET /books/2"), (
            "psql's own statements are not the app's"
        )
    assert find(find_lesson(1)) is None


WORKER = """
import asyncio
import os
import signal

import asyncpg


async def main() -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    print("looking for work")
    connection = await asyncpg.connect(os.environ["DATABASE_URL"].replace("+asyncpg", ""))
    await connection.fetch("SELECT 'work'")
    await stopped.wait()
    await connection.close()
    print("no more work")


asyncio.run(main())
"""
PAYING = """

@app.get("/pay")
async def pay() -> int:
    import os

    import httpx

    async with httpx.AsyncClient(trust_env=False) as client:
        return (await client.post(os.environ["PAYMENT_URL"] + "/payments", json={"cents": 5})).status_code
"""
MANIFEST = """
[[outside]]
env = "PAYMENT_URL"
name = "payment provider"
status = 201
body = '{"id": "p{n}"}'
"""


@pytest.fixture
def paying(tmp_path: Path, copied: Callable[[Path], Path]) -> Path:
    """A checkout whose lesson 01 has a worker and calls a payment provider."""
    checkout = copied(tmp_path / "bookshop")
    lesson = checkout / "lessons/lesson_01"
    manifest = lesson / "lesson.toml"
    manifest.write_text('worker = "app.worker"\n' + manifest.read_text() + MANIFEST)
    (lesson / "app/worker.py").write_text(WORKER)
    with (lesson / "app/main.py").open("a") as main:
        main.write(PAYING)
    return checkout


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGINT to send")
async def test_a_worker_runs_beside_the_app_and_an_outside_service_is_there(paying: Path) -> None:
    port = free_port()
    last: list[str] = []
    async with _serving(port, checkout=paying, last=last) as printed:
        said = await read_until(printed, "/docs")
        assert "The payment provider, at PAYMENT_URL: http://127.0.0.1:" in said
        said += await read_until(printed, "SELECT 'work'")
        assert "app.worker runs beside the app; its lines begin with its name." in said
        assert "  app.worker | looking for work\n" in said or "looking for work" in await read_until(printed, "looking")
        assert re.search(r"^  app\.worker #\d+ SELECT 'work'", said, re.MULTILINE)
        assert await _get(port, "/pay") == 200
        paid = await read_until(printed, "← 200 GET /pay")
        assert '  → payment provider: POST /payments {"cents":5}  ← 201 {"id": "p1"}\n' in paid
        worker = paying / "lessons/lesson_01/app/worker.py"
        worker.write_text('raise LookupError("no settings")\n')
        died = await read_until(printed, "by itself.")
        assert "app/worker.py saved" in died and "no more work" in died
        assert "LookupError: no settings" in died
        assert "app.worker ended with exit code 1 by itself." in died
        assert await _get(port, "/pay") == 200, "the app goes on"
        worker.write_text(WORKER)
        await read_until(printed, "SELECT 'work'")
    [goodbye] = last
    assert "SIGTERM sent to the app and app.worker" in goodbye
    assert "  app.worker | no more work\n" in goodbye
    assert "They left after" in goodbye


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGINT to send")
def test_a_command_in_the_folder_finds_the_outside_service(paying: Path) -> None:
    program = "import os, urllib.request as u; print(u.urlopen(os.environ['PAYMENT_URL'], b'{}').status)"
    done = workbook(paying, "run", "1", "python", "-c", program)
    assert "201" in done.stdout.split(), done.stdout + done.stderr


def test_only_a_serve_that_lives_offers_its_database(tmp_path: Path) -> None:
    lesson = find_lesson(1)
    database = ServedDatabase("postgresql://somewhere", "PostgreSQL", "/programs")
    assert find(lesson, tmp_path) is None
    with offer(lesson, database, tmp_path):
        [file] = tmp_path.iterdir()
        assert file.stat().st_mode & 0o077 == 0, "it holds a password"
        assert find(lesson, tmp_path) == database
        assert find(find_lesson(2), tmp_path) is None
        left_over = file.read_bytes()
    assert find(lesson, tmp_path) is None
    file.write_bytes(left_over)  # as after a serve that was killed
    assert find(lesson, tmp_path) is None
    assert not file.exists()


def test_a_traceback_is_folded_to_the_learners_lines(tmp_path: Path) -> None:
    """The last exception counts; what led to it is the same fault, seen earlier."""
    printed = f'''Traceback (most recent call last):
  File "/python/driver.py", line 9, in execute
    raise UniqueViolationError
asyncpg.exceptions.UniqueViolationError: duplicate key

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "/python/starlette/routing.py", line 7, in app
    await route()
  File "{tmp_path}/app/main.py", line 3, in outer
    await inner()
  File "{tmp_path}/app/deep.py", line 9, in inner
    await session.flush()
          ^^^^^^^^^^^^^^^
  File "/python/sqlalchemy/orm.py", line 70, in flush
    raise translated
sqlalchemy.exc.MissingGreenlet: greenlet_spawn has not been called
(Background on this error at: https://sqlalche.me/e/21/xd2s)
'''
    assert fold(printed, tmp_path) == [
        "sqlalchemy.exc.MissingGreenlet: greenlet_spawn has not been called",
        "(Background on this error at: https://sqlalche.me/e/21/xd2s)",
        "In other words: " + explained("MissingGreenlet"),
        f"  {tmp_path}/app/main.py:3  in outer",
        "    await inner()",
        f"  {tmp_path}/app/deep.py:9  in inner",
        "    await session.flush()",
    ]


def explained(error: str) -> str:
    from checks.kit.report.known_errors import explain_error

    return explain_error(error)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
def test_a_breakpoint_opens_a_prompt_in_the_terminal(mine: Path) -> None:
    import ptyprocess

    port = free_port()
    command = [*WORKBOOK, "serve", "1", "--target", str(mine), "--port", str(port)]
    terminal = ptyprocess.PtyProcessUnicode.spawn(command, cwd=str(ROOT), env=dict(ENVIRON), dimensions=(40, 200))
    try:
        _read_until(terminal, "/docs")
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"GET /stop HTTP/1.0\r\n\r\n")
            _read_until(terminal, "breakpoint(): the app waits here.")
            _read_until(terminal, "(Pdb) ")
            terminal.write("p found\n")
            _read_until(terminal, "42")
            _read_until(terminal, "(Pdb) ")
            terminal.write("c\n")
            _read_until(terminal, "← 200 GET /stop")
            assert client.recv(4096).startswith(b"HTTP/1.1 200")
        terminal.sendintr()
        _read_until(terminal, "It left after")
        assert terminal.wait() == 0
    finally:
        terminal.close(force=True)


def _read_until(terminal: Any, text: str) -> None:
    """Reads to `text`, for which there is no limit but that of the whole test run's patience."""
    printed = ""
    while text not in printed:
        try:
            printed += terminal.read(1)
        except EOFError:
            raise AssertionError(f"{text!r} was not printed:\n{printed}") from None


@pytest.mark.slow
async def test_a_port_that_is_taken_between_two_starts_is_named(mine: Path) -> None:
    port, main = free_port(), mine / "lesson_01/app/main.py"
    right = main.read_text()
    main.write_text("this is no Python\n")
    async with _serving(port, "--target", str(mine)) as printed:
        await read_until(printed, "Save a change to try again")
        with socket.create_server(("127.0.0.1", port)):
            main.write_text(right)
            said = await read_until(printed, "Save a change to try again")
        assert f"Port {port} is taken. Choose another: workbook serve 1 --port {port + 1}" in said
        assert "uvicorn.run()" not in said
        main.write_text(right + "\n")
        await read_until(printed, "/docs")


@pytest.mark.slow
def test_a_breakpoint_in_a_graded_run_says_where_it_works(mine: Path) -> None:
    main = mine / "lesson_01/app/main.py"
    main.write_text(main.read_text() + "\n\nbreakpoint()\n")
    done = pytest_run("checks/lesson_01", "-k", "created", "--target", str(mine))
    said = " ".join(done.stdout.split())
    assert "breakpoint() has no keyboard here. It works under `workbook serve 1` in a terminal" in said
    assert f"main.py:{len(main.read_text().splitlines())}" in said


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("debugpy") is None, reason="needs debugpy: uv sync --extra debug")
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGINT to send")
async def test_an_editor_stops_the_app_at_a_breakpoint(mine: Path) -> None:
    port = free_port()
    main = mine / "lesson_01/app/main.py"
    line = next(number for number, text in enumerate(main.read_text().splitlines(), 1) if "41 + 1" in text)
    async with _serving(port, "--debug", "--target", str(mine)) as printed:
        await read_until(printed, "waits for an editor at 127.0.0.1:5678")
        editor = await Editor.attach(main, line)
        await read_until(printed, "/docs")
        request = asyncio.create_task(_get(port, "/stop"))
        stopped = await editor.event("stopped")
        assert stopped["body"]["reason"] == "breakpoint"
        await editor.ask("setBreakpoints", source={"path": str(main)}, breakpoints=[])
        await editor.ask("continue", threadId=stopped["body"]["threadId"])
        stopped = await editor.event("stopped")  # at the call of breakpoint()
        await editor.ask("continue", threadId=stopped["body"]["threadId"])
        assert await request == 200
        editor.close()


class Editor:
    """As much of the Debug Adapter Protocol as a test needs."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._number = 0
        self._events: list[dict[str, Any]] = []

    @classmethod
    async def attach(cls, file: Path, line: int) -> Editor:
        editor = cls(*await asyncio.open_connection("127.0.0.1", 5678))
        await editor.ask("initialize", adapterID="test", pathFormat="path")
        editor.send("attach", justMyCode=True)  # its response comes after configurationDone
        await editor.event("initialized")
        await editor.ask("setBreakpoints", source={"path": str(file)}, breakpoints=[{"line": line}])
        await editor.ask("configurationDone")
        return editor

    def send(self, command: str, **arguments: Any) -> int:
        self._number += 1
        body = json.dumps({"seq": self._number, "type": "request", "command": command, "arguments": arguments})
        self._writer.write(f"Content-Length: {len(body)}\r\n\r\n{body}".encode())
        return self._number

    async def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        number = self.send(command, **arguments)
        while True:
            message = await self._read()
            if message["type"] == "response" and message["request_seq"] == number:
                assert message["success"], message
                return message
            self._events.append(message)

    async def event(self, name: str) -> dict[str, Any]:
        while True:
            message = self._events.pop(0) if self._events else await self._read()
            if message.get("event") == name:
                return message

    async def _read(self) -> dict[str, Any]:
        head = await self._reader.readuntil(b"\r\n\r\n")
        message: dict[str, Any] = json.loads(await self._reader.readexactly(int(head.split(b":")[1])))
        return message

    def close(self) -> None:
        self._writer.close()
