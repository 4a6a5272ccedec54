"""`workbook dev bench`: what the kit costs, as ratios against a floor measured beside it in the same run."""

from __future__ import annotations

import asyncio
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from checks.kit.authoring.bench_proxy import proxy_costs
from checks.kit.lessons.lesson import Lesson
from checks.kit.lessons.paths import ROOT
from checks.kit.lessons.short_folder import short_temporary_folder
from checks.kit.report import terminal
from checks.kit.testbed.pgbouncer import HOW_TO_INSTALL, find_pgbouncer
from checks.kit.testbed.runtime import Runtime


def bench(lesson: Lesson, rounds: int) -> None:
    """Prints each measurement with its limit; a number over its limit is marked, and nothing fails.

    Medians of the rounds, in seconds; of the proxy, the least.
    """
    out = terminal.console()
    out.print(f"Lesson {lesson.number:02}, {rounds} rounds, medians\n", style="bold")
    _graded(lesson)  # what only the very first run does, such as initdb, is not measured
    floors: list[float] = []
    grades: list[float] = []
    with out.status("") as status:
        for number in range(1, rounds + 1):  # side by side, so that both see the same machine
            status.update(f"Round {number}: cold to verdict, and uvicorn alone")
            for measured, measure in ((floors, _uvicorn_alone), (grades, _graded)):
                time.sleep(0.5)  # the server of the run before has left, and the processor has rested for both
                measured.append(measure(lesson))
    _row(out, "uvicorn alone: import the solution, respond once", statistics.median(floors))
    _row(out, f"pytest checks/{lesson.name}: cold to verdict", statistics.median(grades))
    # a machine's speed may change within seconds: only what was measured in the same round is compared
    ratios = [grade / floor for grade, floor in zip(grades, floors, strict=True)]
    _ratio(out, "cold to verdict / uvicorn alone, in one round", statistics.median(ratios), 1.7)
    with out.status("Save to verdict"):
        first, whole = asyncio.run(_saved(lesson, rounds))
    _row(out, "workbook watch: save to the first verdict", first)
    _ratio(out, "save to the first verdict / cold to verdict", first / statistics.median(grades), 0.3)
    _row(out, "workbook watch: save to all verdicts", whole)
    run = Runtime({**os.environ, "DATABASE_URL": ""})  # a server nearby: neither TLS nor a network is measured
    beside_pgbouncer = find_pgbouncer() is not None
    try:
        with out.status("The proxy"):
            costs = asyncio.run(proxy_costs(run, beside_pgbouncer=beside_pgbouncer))
    finally:
        run.close()
    if not beside_pgbouncer:
        out.print(
            "PgBouncer is not installed, so the proxy is compared with a direct connection only. "
            f"To have both: {HOW_TO_INSTALL}\n"
        )
    for cost in costs:
        _row(out, f"{cost.what}, direct", cost.direct)
        if cost.pgbouncer is not None:
            _row(out, f"{cost.what}, through PgBouncer", cost.pgbouncer)
        _row(out, f"{cost.what}, through the proxy", cost.proxy)
        if cost.pgbouncer is not None:
            _ratio(out, "PgBouncer / direct", cost.pgbouncer / cost.direct)
            if cost.limit_pgbouncer is not None:
                _ratio(out, "proxy / PgBouncer", cost.proxy / cost.pgbouncer, cost.limit_pgbouncer)
        _ratio(out, "proxy / direct", cost.proxy / cost.direct, cost.limit_direct)


def _row(out: Any, what: str, seconds: float) -> None:
    shown = f"{seconds * 1e6:.0f} µs" if seconds < 0.01 else f"{seconds:.2f} s"
    out.print(f"  {what:<50} {shown:>9}")


def _ratio(out: Any, what: str, ratio: float, limit: float | None = None) -> None:
    if limit is None:
        out.print(f"  {what:<50} {ratio:>8.2f}x")
        return
    good = ratio <= limit
    text = f"{'✓' if good else '✗'} {what:<50} {ratio:>8.2f}x  (at most {limit}x)\n"
    out.print(text, style="green" if good else "bold red")


def _uvicorn_alone(lesson: Lesson) -> float:
    """Seconds from starting `uvicorn` to the first byte of a response of the solution; no statement is sent."""
    with tempfile.TemporaryDirectory(prefix="bench-", dir=short_temporary_folder()) as scratch:
        path = f"{scratch}/app.sock"
        url = "postgresql+asyncpg://bench:bench@127.0.0.1:1/bench"
        environ = _environ() | {"DATABASE_URL": url} | lesson.settings
        command = [sys.executable, "-m", "uvicorn", lesson.app, "--uds", path, "--log-level", "critical"]
        began = time.perf_counter()
        process = subprocess.Popen(command, cwd=lesson.solution, env=environ)
        try:
            while True:
                try:
                    with socket.socket(socket.AF_UNIX) as client:
                        client.connect(path)
                        client.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: bench\r\n\r\n")
                        client.recv(1)
                        return time.perf_counter() - began
                except (FileNotFoundError, ConnectionRefusedError):
                    time.sleep(0.002)
        finally:
            process.kill()
            process.wait()


def _graded(lesson: Lesson) -> float:
    """Seconds from starting pytest to the line that says how many checks pass."""
    command = [sys.executable, "-m", "pytest", f"checks/{lesson.name}", "--target", "solutions"]
    began = time.perf_counter()
    seconds = 0.0
    printed = []
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=_environ()) as grader:
        assert grader.stdout is not None
        for line in grader.stdout:
            printed.append(line)
            if "checks pass" in line:
                seconds = time.perf_counter() - began
    if grader.returncode:
        raise SystemExit("".join(printed))
    return seconds


async def _saved(lesson: Lesson, rounds: int) -> tuple[float, float]:
    """Median seconds from the moment at which `workbook watch` knows of a save to the first and to the last verdict.

    What comes before is the file system's notice and the 20 ms for which the editor has to be quiet.
    """
    from checks.kit.grading.pool import graders
    from checks.kit.report.live import LiveReceiver, LiveReport

    firsts, wholes = [], []
    async with graders() as warm:
        for number in range(rounds + 1):
            live_report = LiveReport()
            told: list[float] = []

            def tell(line: bytes, live_report: LiveReport = live_report, told: list[float] = told) -> None:
                if live_report.feed(line):
                    told.append(time.perf_counter())

            receiver = LiveReceiver(tell)
            address = await receiver.open(warm.scratch / f"bench-{number}.sock")
            began = time.perf_counter()
            arguments = (f"checks/{lesson.name}", "--target", "solutions", "--live", address)
            process = await warm.start(*arguments, log=warm.scratch / f"bench-{number}.log")
            await process.exit
            await receiver.drain()
            receiver.close()
            if number:  # the first one meets parents that are still importing
                firsts.append(told[0] - began)
                wholes.append(told[-1] - began)
    return statistics.median(firsts), statistics.median(wholes)


def _environ() -> dict[str, str]:
    """Both sides may keep their compiled files, as on a learner's machine."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
