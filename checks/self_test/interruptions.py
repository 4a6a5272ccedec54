"""Interrupts commands at random moments, again and again, and looks for what stays behind.

    python -m checks.self_test.interruptions 200 [SEED]

It works in a copy of the checkout. SIGINT and SIGTERM must leave no process. SIGKILL may leave the PostgreSQL server
and the command of `workbook run`, with the record of the run and its scratch folder. The next command that starts the
server removes all of it. Apps and graders always go.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import psutil

from checks.kit.service.end_signals import end_as_ctrl_c_does
from checks.self_test.commands import ENVIRON, WORKBOOK, copy_workbook

PYTEST = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider")
COMMANDS: tuple[tuple[str, ...], ...] = (
    (*PYTEST, "checks/lesson_00", "--target", "solutions"),
    (*PYTEST, "checks/lesson_01"),
    (*PYTEST, "checks/lesson_05", "--target", "solutions"),
    (*WORKBOOK, "watch", "0"),
    (*WORKBOOK, "serve", "1", "--port", "18973"),
    (*WORKBOOK, "cost", "1"),
    (*WORKBOOK, "run", "1", "sleep", "600"),
    (*WORKBOOK, "psql", "1"),
    (*WORKBOOK, "doctor"),
)
T = TypeVar("T")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
LONGEST = 8.0
"""Seconds after which a command is interrupted at the latest: most take less on a quiet machine."""
LIMIT = 60.0
"""Seconds that a command may take to end, and what it started to follow; a bound for failures."""


class Interruption(NamedTuple):
    """A command, the signal that its main process got, and the second at which it got it."""

    command: tuple[str, ...]
    signal: signal.Signals
    after: float

    def __str__(self) -> str:
        words = [Path(word).name if "/bin/" in word else word for word in self.command if "import sys" not in word]
        return f"{self.signal.name} after {self.after:.2f} s of {' '.join(words)}"


@dataclass(frozen=True, slots=True)
class Place:
    """A copy of the checkout, with a folder for its temporary files."""

    folder: Path

    @property
    def checkout(self) -> Path:
        return self.folder / "bookshop"

    @property
    def temporary(self) -> Path:
        return self.folder / "tmp"

    def start(self, command: tuple[str, ...]) -> subprocess.Popen[bytes]:
        environ = ENVIRON | {"TMPDIR": str(self.temporary), "PYTHONUNBUFFERED": "1"}
        return subprocess.Popen(
            command, cwd=self.checkout, env=environ, stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip

    def processes(self) -> list[psutil.Process]:
        """Living processes that work in this place, name it in their command, or have its TMPDIR."""
        return [process for process in psutil.process_iter() if self._has(process)]

    def _has(self, process: psutil.Process) -> bool:
        name = str(self.folder)
        try:
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                return False
            return (
                process.cwd().startswith(name)
                or any(name in word for word in process.cmdline())
                or process.environ().get("TMPDIR", "").startswith(name)
            )
        except psutil.Error:
            return False

    def files(self) -> list[Path]:
        """What lies about of runs: records, scratch folders, the file of a PostgreSQL server."""
        records = self.checkout.glob(".workbook/run/*.run")
        servers = self.checkout.glob(".workbook/**/postmaster.pid")
        return [*records, *servers, *self.temporary.iterdir()]


def interrupt(place: Place, what: Interruption, *, after_kill: bool) -> str:
    """Runs and interrupts a command; what it left behind that it may not leave, in words.

    `after_kill`: it may have found something that one before it had left when that was killed.
    """
    process = place.start(what.command)
    try:
        process.wait(what.after)
    except subprocess.TimeoutExpired:
        if what.signal is signal.SIGINT:  # as a terminal sends it, to the command of `workbook run` as well
            os.killpg(process.pid, signal.SIGINT)
        else:
            process.send_signal(what.signal)
    if process.stdin:
        process.stdin.close()  # psql stays on Ctrl-C, and leaves at the end of its input
    try:
        process.wait(LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return f"{what}: it did not end within {LIMIT:.0f} s"
    if left := remaining(lambda: [left for left in place.processes() if not (after_kill and _may_outlive(left))]):
        return f"{what}: left {', '.join(map(_shown, left))}"
    return ""


def interrupt_often(place: Place, times: int, seed: int) -> Iterator[str]:
    """Interrupts commands `times` times; yields a sentence about each that left too much."""
    chance = random.Random(seed)
    after_kill = False
    for number in range(times):
        what = Interruption(chance.choice(COMMANDS), chance.choice(SIGNALS), chance.uniform(0, LONGEST))
        after_kill = after_kill or what.signal is signal.SIGKILL
        sentence = interrupt(place, what, after_kill=after_kill)
        after_kill = after_kill and bool(place.processes())
        sys.stdout.write(f"{number + 1}/{times} {sentence or what}\n")
        sys.stdout.flush()
        if sentence:
            yield sentence


def clean_up(place: Place) -> str:
    """Runs one more command to its end; what is left after it, in words."""
    process = place.start((*PYTEST, "checks/lesson_00", "--target", "solutions"))
    code = process.wait(LIMIT)
    left = remaining(lambda: [*map(_shown, place.processes()), *map(str, place.files())])
    return "" if code == 0 and not left else f"after one more run, which ended with exit code {code}: {', '.join(left)}"


def remaining(look: Callable[[], list[T]]) -> list[T]:
    """What `look` still finds after LIMIT seconds; returns as soon as that is nothing."""
    deadline = time.monotonic() + LIMIT
    while (found := look()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def _may_outlive(process: psutil.Process) -> bool:
    """Whether it is of a kind that may be there until the next command."""
    try:
        return process.name() in ("postgres", "sleep")
    except psutil.Error:
        return True  # it has ended


def _shown(process: psutil.Process) -> str:
    try:
        return f"{process.pid} {' '.join(process.cmdline())[:150]}"
    except psutil.Error:
        return f"{process.pid}"


def main(times: int, seed: int) -> int:
    # a shell starts what it runs in its background with SIGINT ignored, and commands would inherit that
    signal.signal(signal.SIGINT, signal.default_int_handler)
    end_as_ctrl_c_does()
    folder = Path(tempfile.mkdtemp(prefix="wb-", dir="/tmp"))
    folder.chmod(0o755)
    place = Place(folder)
    place.temporary.mkdir(mode=0o777)
    copy_workbook(place.checkout)
    try:
        sentences = [*interrupt_often(place, times, seed), clean_up(place)]
        left = [sentence for sentence in sentences if sentence]
        print(*left or [f"Nothing is left of {times} interrupted commands."], sep="\n")  # noqa: T201
        return 1 if left else 0
    finally:
        for process in place.processes():
            process.kill()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1))
