"""A command that a learner would type in the lesson's folder, run as a process of its own."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from checks.kit.service.launcher import text_of
from checks.kit.service.process import Workspace

COMMAND_TIMEOUT = 30.0
"""Seconds after which a command is killed; a bound for failures, not a measurement."""

ERROR = re.compile(r"FAILED:|ERROR|[A-Za-z_][\w.]*(Error|Exception|Exit|Interrupt)\b")
"""How the line begins that names an error: Alembic's own, a logger's, a traceback's last."""


@dataclass(frozen=True, slots=True)
class CompletedCommand:
    """How a command ended: its exit code, None if it was killed because it did not end, and what it printed.

    `command` is what was typed, such as `alembic upgrade head`. As text it is a sentence with the reason of a failure.
    `stdout` is what it printed to standard output, if that was kept apart from `output`.
    """

    command: str
    code: int | None
    output: str
    stdout: str = ""

    @property
    def ok(self) -> bool:
        return self.code == 0

    @property
    def last_line(self) -> str:
        """The line that says why: the last error's, after which SQLAlchemy prints the statement and a link as well."""
        lines = [line for line in self.output.splitlines() if line.strip()]
        errors = [line for line in lines if ERROR.match(line)]
        return (errors or lines or [""])[-1]

    def __str__(self) -> str:
        how = "did not end" if self.code is None else f"ended with exit code {self.code}"
        return f"`{self.command}` {how}" + ("" if self.ok else f": {_short(self.last_line)}")


async def run_command(
    workspace: Workspace,
    env: Mapping[str, str],
    *arguments: str,
    name: str = "",
    apart: bool = False,
    within: float = COMMAND_TIMEOUT,
) -> CompletedCommand:
    """Runs `python -m arguments[0] …` and waits until it ends, at most `within` seconds.

    `name` is one of `Workspace.name_for`; by default it is called by its arguments. `apart`: see CompletedCommand.
    """
    name = name or workspace.name_for(" ".join(arguments))
    spec = workspace.spec(env, *arguments)
    if apart:
        spec = replace(spec, out=f"{spec.log}.out")
    async with workspace.process(name, spec) as process:
        try:
            code = await asyncio.wait_for(asyncio.shield(process.exit), within)
        except TimeoutError:
            code = None
    stdout = text_of(Path(spec.out)) if apart else ""
    done = CompletedCommand(" ".join(arguments), code, process.log, stdout)
    workspace.note(f"{done.command} → exit code {code}" if code is not None else f"{done.command} → did not end")
    return done


def _short(text: str, width: int = 300) -> str:
    return text if len(text) <= width else f"{text[:width].rstrip()} …"
