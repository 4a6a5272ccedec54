"""A command that a learner would type in the lesson's folder, run as a process of its own."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from checks.kit.service.app import PATIENCE, environment, text_of
from checks.kit.service.launcher import Launcher
from checks.kit.service.order import Order

_numbers = itertools.count(1)


ERROR = re.compile(r"FAILED:|ERROR|[A-Za-z_][\w.]*(Error|Exception|Exit|Interrupt)\b")
"""How the line begins that names an error: Alembic's own, a logger's, a traceback's last."""


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
        """The line that says why: the last error's, behind which SQLAlchemy prints the statement and a link as well."""
        lines = [line for line in self.output.splitlines() if line.strip()]
        errors = [line for line in lines if ERROR.match(line)]
        return (errors or lines or [""])[-1]

    def __str__(self) -> str:
        how = "did not end" if self.code is None else f"ended with exit code {self.code}"
        return f"`{self.command}` {how}" + ("" if self.ok else f": {_short(self.last_line)}")


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


def _short(text: str, width: int = 300) -> str:
    return text if len(text) <= width else f"{text[:width].rstrip()} …"
