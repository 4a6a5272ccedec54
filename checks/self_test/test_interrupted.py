"""Whatever ends a command, or a process that it needs: one sentence, and nothing that stays behind."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import psutil
import pytest

from checks.kit.cli.foreground import run_in_foreground
from checks.kit.testbed.runtime import Runtime
from checks.self_test.commands import ENVIRON, WORKBOOK, pytest_run, read_until, workbook
from checks.self_test.interruptions import PYTEST, Place, clean_up, interrupt_often, remaining

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no signals to send")


@pytest.fixture
def place(folder: Path, copied: Callable[[Path], Path]) -> Iterator[Place]:
    """A copy of the checkout; afterwards nothing of it may be left running."""
    place = Place(folder)
    place.temporary.mkdir(mode=0o777)
    copied(place.checkout)
    yield place
    assert not remaining(place.processes)


@pytest.mark.parametrize(
    ("command", "ready", "signum"),
    [
        ((*WORKBOOK, "run", "1", "sleep", "600"), "DATABASE_URL", signal.SIGTERM),
        pytest.param((*PYTEST, "checks/lesson_00"), "✓", signal.SIGHUP, marks=pytest.mark.slow),
        pytest.param((*WORKBOOK, "run", "1", "sleep", "600"), "DATABASE_URL", signal.SIGHUP, marks=pytest.mark.slow),
        pytest.param((*WORKBOOK, "serve", "1", "--port", "18974"), "/docs", signal.SIGHUP, marks=pytest.mark.slow),
        pytest.param((*PYTEST, "checks/lesson_00"), "✓", signal.SIGTERM, marks=pytest.mark.slow),
        # as a shell starts what it runs in the background
        pytest.param(("sh", "-c", 'trap "" INT; exec "$@"', "sh", *PYTEST, "checks/lesson_00"), "✓", signal.SIGTERM,
                     marks=pytest.mark.slow),
    ],
)  # fmt: skip
async def test_a_signal_ends_everything(
    place: Place, command: tuple[str, ...], ready: str, signum: signal.Signals
) -> None:
    environ = ENVIRON | {"TMPDIR": str(place.temporary), "PYTHONUNBUFFERED": "1"}
    process = await asyncio.create_subprocess_exec(
        *command, cwd=place.checkout, env=environ, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(150):
        await read_until(process.stdout, ready)
        process.send_signal(signum)
        await process.stdout.read()
        await process.wait()
    assert not remaining(place.processes)
    assert not remaining(place.files)


async def test_a_signal_that_comes_while_a_command_starts_reaches_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = asyncio.create_subprocess_exec

    async def start_late(*command: str, **options: Any) -> asyncio.subprocess.Process:
        signal.raise_signal(signal.SIGTERM)
        return await start(*command, **options)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", start_late)
    runtime = Mock(spec=Runtime)
    assert await run_in_foreground(runtime, ["sleep", "600"], folder=tmp_path) == 128 + signal.SIGTERM
    runtime.note_process.assert_called_once()


def test_the_cost_of_an_app_that_does_not_start_is_its_log(place: Place) -> None:
    main = place.checkout / "lessons/lesson_01/app/main.py"
    main.write_text("x = (\n" + main.read_text())
    done = workbook(place.checkout, "cost", "1")
    assert done.returncode == 1
    assert "SyntaxError: '(' was never closed" in done.stderr
    assert done.stderr.rstrip().endswith("Its log is above.")
    assert "asyncpg" not in done.stderr


def test_an_app_that_kills_the_fork_server_ends_the_run_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "main.py").write_text(
        "import os, signal, time\nos.kill(os.getppid(), signal.SIGKILL)\ntime.sleep(600)\n"
    )
    done = pytest_run("checks/lesson_00", "--target", tmp_path)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR, done.stdout
    assert "The process that starts apps has ended or was stopped." in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.slow
async def test_watch_starts_its_fork_servers_again(place: Place) -> None:
    environ = ENVIRON | {"TMPDIR": str(place.temporary), "PYTHONUNBUFFERED": "1", "WORKBOOK_PLAIN": "1"}
    watch = await asyncio.create_subprocess_exec(
        *WORKBOOK, "watch", "0", cwd=place.checkout, env=environ, stdout=asyncio.subprocess.PIPE
    )
    assert watch.stdout is not None
    async with asyncio.timeout(150):
        await read_until(watch.stdout, "Open:")
        killed = [child for child in psutil.Process(watch.pid).children() if "fork_server" in " ".join(child.cmdline())]
        assert len(killed) == 2
        for child in killed:
            child.kill()
        psutil.wait_procs(killed, timeout=30)
        (place.checkout / "lessons/lesson_00/app/saved.py").write_text("")
        await read_until(watch.stdout, "Open:")
        watch.send_signal(signal.SIGTERM)
        await watch.stdout.read()
        assert await watch.wait() == 0


@pytest.mark.slow
def test_commands_that_are_interrupted_at_random_leave_nothing(place: Place) -> None:
    """20 of them; `python -m checks.self_test.interruptions 200` does more."""
    assert not list(interrupt_often(place, 20, seed=os.getpid()))
    assert not clean_up(place)
