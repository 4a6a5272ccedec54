"""A command that a learner would type in the lesson's folder, run as a process of its own."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from checks.kit.service.app import PATIENCE, environment, text_of
from checks.kit.service.launcher import Launcher
from checks.kit.service.order import Order

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended: its exit code (None: it did not end in time and was killed) and what it printed."""

    command: str
    code: int | None
    output: str

    @property
    def ok(self) -> bool:
        return self.code == 0

    @property
    def last_line(self) -> str:
        """The last line that says something: behind an error SQLAlchemy prints the statement and a link as well."""
        aside = ("(", "[", " ", "\t", "HINT", "DETAIL")
        lines = [line for line in self.output.splitlines() if line.strip()]
        return next((line for line in reversed(lines) if not line.startswith(aside)), lines[-1] if lines else "")

    def __str__(self) -> str:
        how = "did not end" if self.code is None else f"ended with exit code {self.code}"
        return f"`{self.command}` {how}" + ("" if self.ok else f": {self.last_line}")


async def run_command(
    launcher: Launcher,
    folder: Path,
    scratch: Path,
    *arguments: str,
    env: Mapping[str, str],
    pycache: Path,
    note: Callable[[str], None] = lambda _: None,
) -> Done:
    """Runs `python -m arguments[0] ...` in `folder`, whatever it does to itself; killed with its process group."""
    log = scratch / f"command-{next(_numbers)}.log"
    order = Order(
        app="",
        folder=str(folder),
        log=str(log),
        listen="",
        ready="",
        env=environment(env),
        command=arguments,
        pycache=str(pycache),
    )
    process = await launcher.launch(order)
    try:
        code = await asyncio.wait_for(asyncio.shield(process.exit), 2 * PATIENCE)
    except TimeoutError:
        code = None
    finally:
        process.kill()
        await process.exit
    done = Done(" ".join(arguments), code, text_of(log))
    note(f"{done.command} → exit code {code}" if code is not None else f"{done.command} → did not end")
    return done
