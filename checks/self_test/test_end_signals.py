"""SIGTERM ends a command as Ctrl-C does, also where SIGINT is ignored and where the signal comes twice."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from checks.kit.lessons.paths import ROOT

PROGRAM = """
import asyncio, os, signal
from checks.kit.service.end_signals import end_as_ctrl_c_does

end_as_ctrl_c_does()


async def listen(needed):
    os.kill(os.getpid(), signal.SIGTERM)  # in the middle of a step of this task
    await needed.wait()
    print("still there", flush=True)


async def main():
    needed = asyncio.Event()
    listening = asyncio.create_task(listen(needed))
    try:
        await asyncio.Event().wait()
    finally:
        os.kill(os.getpid(), signal.SIGTERM)  # as `uv run` passes on the signal that came to the whole group
        needed.set()
        await listening
        print("cleaned up", flush=True)


try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.parametrize("sigint", [signal.SIG_IGN, signal.SIG_DFL], ids=["SIGINT ignored", "SIGINT as usual"])
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM that a process can handle")
def test_a_signal_cancels_the_main_task_once(sigint: signal.Handlers) -> None:
    before = signal.signal(signal.SIGINT, sigint)  # a child inherits it
    try:
        done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=False)
    finally:
        signal.signal(signal.SIGINT, before)
    assert done.stdout.splitlines() == ["still there", "cleaned up", "interrupted"], done.stderr
