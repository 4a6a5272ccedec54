"""What a notebook imports: the lesson's app on a live PostgreSQL, its wire, and pictures of both.

from checks.kit.notebook import scene, grade, timeline
"""

from __future__ import annotations

import atexit
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checks.kit import catalogue
from checks.kit.catalogue import ROOT, CatalogueError
from checks.kit.run import Run
from checks.kit.service import Answer, App, AppDidNotStart, Done
from checks.kit.shop import Shop
from checks.kit.stage import Stage
from checks.kit.targets import find_target, lesson_folder
from checks.kit.wire import Recording, Wire

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_runs: list[Run] = []


@dataclass(frozen=True, slots=True)
class Scene:
    """A running app, the wire between it and PostgreSQL, and the shop's rows."""

    app: App
    wire: Wire
    shop: Shop


@asynccontextmanager
async def scene(
    number: int, target: str = "lessons", *, env: dict[str, str | None] | None = None
) -> AsyncIterator[Scene]:
    """Starts an app of a lesson: yours (`lessons`), the solution (`solutions`), or a variant by its name.

    `env` adds settings; None takes one away. Raises AppDidNotStart, whose `log` says why.
    """
    lesson = catalogue.lesson(number)
    with tempfile.TemporaryDirectory(prefix="notebook-") as scratch:
        stage = Stage(_run(), lesson, _folder(number, target, Path(scratch)))
        stage.set(with_app=False)
        try:
            await stage.ready()
            app = await stage.launch(env)
            yield Scene(app, stage.wire, Shop(stage.database))
        finally:
            await stage.clear()


@dataclass(frozen=True, slots=True)
class Desk:
    """An empty database, the wire to it, and commands in a lesson's folder that find it in DATABASE_URL."""

    wire: Wire
    shop: Shop
    stage: Stage

    async def run(self, *arguments: str, lines: int = 4, **options: Any) -> Done:
        """Runs `python -m arguments[0] …` and prints the end of what it printed."""
        done = await self.stage.command(*arguments, **options)
        print(f"$ {done.command}   [exit code {done.code}]")  # noqa: T201
        printed = [line for line in done.output.splitlines() if line.strip()]
        for line in [done.last_line] if lines == 1 and printed else printed[max(0, len(printed) - lines) :]:
            print(f"  {line[:150]}")  # noqa: T201
        return done


@asynccontextmanager
async def desk(number: int, target: str = "lessons") -> AsyncIterator[Desk]:
    """A database and a command line in the folder of a lesson: yours, the solution's, or a variant's."""
    lesson = catalogue.lesson(number)
    with tempfile.TemporaryDirectory(prefix="notebook-") as scratch:
        stage = Stage(_run(), lesson, _folder(number, target, Path(scratch)))
        stage.set(with_app=False)
        try:
            await stage.ready()
            yield Desk(stage.wire, Shop(stage.database), stage)
        finally:
            await stage.clear()


async def log_of_start(number: int, target: str = "lessons", *, env: dict[str, str | None]) -> str:
    """What an app prints when it is started with these settings and ends by itself; "" if it runs."""
    try:
        async with scene(number, target, env=env):
            return ""
    except AppDidNotStart as refusal:
        return f"{refusal.log.rstrip()}\n[exit code {refusal.code}]"


def grade(number: int, *, first: bool = False) -> None:
    """Grades your code for a lesson, as `pytest checks/lesson_NN` does, and prints the verdicts.

    With `first` it stops at the first check that fails.
    """
    command = [sys.executable, "-m", "pytest", f"checks/lesson_{number:02}", *(["-x"] if first else [])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    print(done.stdout)  # noqa: T201


def show(seen: Recording) -> None:
    """Prints the author's statements in the order in which they were sent, with the connection of each."""
    numbers: dict[int, int] = {}
    for statement in seen.story:
        number = numbers.setdefault(statement.connection, len(numbers) + 1)
        result = statement.error.message if statement.error else f"{statement.rows} rows" if statement.rows else ""
        print(f"#{number}  {' '.join(statement.text.split())[:88]:<90}{result}")  # noqa: T201


class Clock:
    """Notes moments on the clock of the tap, for `timeline`."""

    def __init__(self) -> None:
        self.moments: list[tuple[str, float]] = []

    def note(self, what: str) -> None:
        self.moments.append((what, time.perf_counter()))

    async def request(self, app: App, method: str, path: str, **options: Any) -> Answer:
        """A request whose sending and whose answer are noted."""
        self.note(f"{method} {path} sent")
        answer = await app.request(method, path, **options)
        self.note(f"{answer.status} arrived")
        return answer


def timeline(seen: Recording, clock: Clock, title: str) -> Figure:
    """Statements as bars, moments as lines, in milliseconds since the first moment."""
    import matplotlib.pyplot as plt

    statements = [one for one in seen.story if one.finished is not None]
    start = min(moment for _, moment in clock.moments)
    figure, axes = plt.subplots(figsize=(9, 1.2 + 0.42 * len(statements)))
    for row, one in enumerate(statements):
        assert one.finished is not None
        left, width = (one.started - start) * 1000, (one.finished - one.started) * 1000
        axes.barh(row, max(width, 0.15), left=left, color="#c0392b" if one.held else "#4878a8", height=0.6)
        label = " ".join(one.text.split())
        axes.text(left + max(width, 0.15), row, f"  {label[:44]}", va="center", fontsize=9)
    for what, moment in clock.moments:
        axes.axvline((moment - start) * 1000, color="#2e7d32", linewidth=1.5, linestyle="--")
        axes.text((moment - start) * 1000, -1.0, what, rotation=0, fontsize=9, color="#2e7d32", ha="left")
    axes.set_ylim(len(statements) - 0.4, -1.6)
    axes.set_yticks([])
    axes.margins(x=0.25)
    axes.set_xlabel("ms")
    axes.set_title(title)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    figure.tight_layout()
    plt.close(figure)
    return figure


def _run() -> Run:
    """One run for the kernel's life."""
    if not _runs:
        _runs.append(Run())
        atexit.register(_runs[0].close)
    return _runs[0]


def _folder(number: int, target: str, scratch: Path) -> Path:
    lesson = catalogue.lesson(number)
    if target in ("lessons", "solutions"):
        return lesson_folder(find_target(target), lesson)
    from checks.kit.verify import variant, variant_folders

    for folder in variant_folders(lesson):
        if folder.name == target:
            return variant(lesson, folder, scratch)[0]
    raise CatalogueError(f"Lesson {number} has no variant {target!r}. Give lessons, solutions or a variant's name.")
