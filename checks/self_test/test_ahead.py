"""How checks are played ahead of pytest, and what a check may ask for."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from checks.kit import parts
from checks.kit.ahead import AT_ONCE, Ahead, Turn
from checks.kit.play import Played
from checks.kit.report.model import Result


class Room:
    """Turns that say when they begin and end when they are told to."""

    def __init__(
        self, count: int, *, alone: tuple[int, ...] = (), slow: tuple[int, ...] = (), unwanted: tuple[int, ...] = ()
    ) -> None:
        self.begun: list[int] = []
        self.ended: list[int] = []
        self._may_end = [asyncio.Event() for _ in range(count)]
        self.turns = [
            Turn(
                lambda n=n: self._play(n), lambda n=n: self._wanted(n not in unwanted), alone=n in alone, slow=n in slow
            )
            for n in range(count)
        ]

    async def _play(self, number: int) -> Played:
        self.begun.append(number)
        try:
            await self._may_end[number].wait()
        finally:
            self.ended.append(number)
        return Played(Result(str(number), ""), None)

    async def _wanted(self, wanted: bool) -> bool:
        return wanted

    def end(self, *numbers: int) -> None:
        for number in numbers:
            self._may_end[number].set()

    async def until(self, *begun: int) -> None:
        async with asyncio.timeout(5):
            while self.begun != list(begun):
                await asyncio.sleep(0)
        for _ in range(20):  # and nothing more
            await asyncio.sleep(0)
        assert self.begun == list(begun)


async def test_a_few_are_under_way_in_their_order() -> None:
    room = Room(AT_ONCE + 2)
    ahead = Ahead(room.turns)
    await room.until(*range(AT_ONCE))
    room.end(1)
    await room.until(*range(AT_ONCE + 1))
    room.end(0)
    assert (await ahead.result(room.turns[0])).result.name == "0"
    await room.until(*range(AT_ONCE + 2))
    await ahead.close()


async def test_what_measures_time_is_alone() -> None:
    room = Room(4, alone=(2,))
    ahead = Ahead(room.turns)
    await room.until(0, 1)
    room.end(0)
    await room.until(0, 1)
    room.end(1)
    await room.until(0, 1, 2)
    room.end(2)
    await room.until(0, 1, 2, 3)
    await ahead.close()


async def test_slow_ones_begin_behind_the_first() -> None:
    room = Room(5, slow=(3, 4))
    ahead = Ahead(room.turns)
    await room.until(0, 3, 4)
    room.end(3)
    await room.until(0, 3, 4, 1)
    await ahead.close()


async def test_who_is_asked_for_waits_for_a_place_that_slow_ones_took() -> None:
    room = Room(AT_ONCE + 2, alone=(1,), slow=tuple(range(2, AT_ONCE + 2)))
    ahead = Ahead(room.turns)
    room.end(0)
    assert (await ahead.result(room.turns[0])).result.name == "0"
    asked = asyncio.create_task(ahead.result(room.turns[1]))
    slow = range(2, AT_ONCE + 2)
    await room.until(0, *slow)
    room.end(*slow)
    await room.until(0, *slow, 1)
    room.end(1)
    assert (await asked).result.name == "1"
    await ahead.close()


async def test_what_nobody_will_ask_for_is_not_begun_or_ends_early() -> None:
    room = Room(4, unwanted=(1,))
    ahead = Ahead(room.turns)
    await room.until(0, 2, 3)
    asked = asyncio.create_task(ahead.result(room.turns[3]))
    await asyncio.sleep(0)
    room.end(3)
    assert (await asked).result.name == "3"
    assert sorted(room.ended) == [0, 2, 3], "nobody asked for 0 and 2 in time"
    await ahead.close()
    assert room.begun == [0, 2, 3]


async def test_closing_ends_whatever_is_under_way() -> None:
    room = Room(AT_ONCE)
    ahead = Ahead(room.turns)
    await room.until(*range(AT_ONCE))
    await ahead.close()
    assert sorted(room.ended) == list(range(AT_ONCE))


def test_a_check_may_ask_for_parts_only() -> None:
    async def check(app: object, tap: object) -> None: ...

    with pytest.raises(parts.UnknownPart, match=r"check asks for 'tap'\. A check may ask for: app, launch"):
        parts.names(check)


@pytest.mark.parametrize(
    ("check", "said"),
    [
        ("async def test_typo(tap): ...", "test_typo asks for 'tap'. A check may ask for: app, launch, wire, shop"),
        ("def test_plain(app): ...", "test_plain is no check: write async def test_plain(app)."),
    ],
)
def test_what_is_no_check_is_refused_when_it_is_collected(
    copied: Callable[[Path], Path], tmp_path: Path, check: str, said: str
) -> None:
    checkout = copied(tmp_path / "checkout")
    file = checkout / "checks" / "lesson_00" / "test_start_and_stop.py"
    file.write_text(f"{file.read_text()}\n\n{check}\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "checks/lesson_00"], cwd=checkout, capture_output=True, text=True
    )
    assert done.returncode == pytest.ExitCode.INTERRUPTED
    assert said in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert "Interrupted" not in done.stdout


def test_an_interruption_before_pytest_listens_is_one_line() -> None:
    code = (
        "import sys; sys.orig_argv = [sys.executable, '-m', 'pytest', 'checks/lesson_00']; "
        "from checks.kit import head_start as h; h.begin = lambda: None; h.at_start(); raise KeyboardInterrupt"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.stderr == "\nInterrupted. Nothing was graded yet; run the same command again.\n"
    assert done.returncode in (-signal.SIGINT, 130)


@pytest.mark.parametrize(
    ("arguments", "begun"),
    [
        (["-m", "pytest", "checks/lesson_00"], True),
        (["-m", "pytest", "checks/lesson_00/test_start_and_stop.py::test_x", "-x"], True),
        (["-m", "pytest", "checks/self_test"], False),
        (["-m", "json.tool", "checks/lesson_00"], False),
    ],
)
def test_the_warm_parent_starts_with_python(tmp_path: Path, arguments: list[str], begun: bool) -> None:
    code = (
        "import sys; sys.orig_argv = [sys.executable, *sys.argv[1:]]; from checks.kit import head_start as h; "
        "h.begin = lambda: print('begun'); h.at_start(); print('checks' in sys.modules)"
    )
    root = Path(__file__).parents[2]
    for folder, expected in ((root, begun), (tmp_path, False)):  # elsewhere it is another checkout's lesson
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(root)},
            capture_output=True,
            text=True,
        )
        assert done.stdout.split() == (["begun", "True"] if expected else ["False"]), done.stderr
