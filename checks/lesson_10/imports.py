"""Imports the modules of a learner's app in fresh interpreters, and tells which of them cannot be imported."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from checks.kit.service.machine import busy
from checks.lesson_10 import first_imports
from checks.lesson_10.first_imports import MARK

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from checks.kit.testbed.testbed import Testbed

SOURCE = Path(first_imports.__file__).read_text(encoding="utf-8")
"""What runs in the interpreter."""

STARTED = ("app.main", "app.worker", "app.report")
"""The modules that are started; all others are imported by them."""

NOT_THE_APP = {"migrations", "tests", "__pycache__"}
"""Folders beside the packages of the app."""

NO_SETTINGS = dict.fromkeys(("DATABASE_URL", "JWT_SECRET", "PAYMENT_URL", "MAIL_URL"))
"""An environment without those variables that some process cannot do without."""

ONLY_A_DATABASE = {name: None for name in NO_SETTINGS if name != "DATABASE_URL"}
"""An environment as a job of another team has it: it reads the database, and is no web server."""

ENDED = "the process ended"
"""What is said of a module whose import ends the process, so that nothing is left to tell why."""

TIMEOUT = 50.0
"""Seconds for all imports; a bound for failures."""

PATIENCE = 3
"""How many times as long they may take where the machine is busy with other things; so may the whole check."""


class Imports:
    """`await imports.first()` and `await imports.together(env)` return what went wrong, by module."""

    def __init__(self, testbed: Testbed) -> None:
        self._testbed = testbed

    @property
    def modules(self) -> list[str]:
        """All modules of the app, sorted. A `__main__.py` is none: to import it is to run it."""
        return modules_in(self._testbed.folder)

    async def first(self) -> dict[str, str]:
        """Imports each module first in a fresh interpreter, with all settings."""
        return await self._run(self.modules, {})

    async def together(self, env: Mapping[str, str | None]) -> dict[str, str]:
        """Imports all modules in one fresh interpreter; those first that are started."""
        started = [name for name in STARTED if name in self.modules]
        ordered = started + [name for name in self.modules if name not in started]
        return await self._run(["together", *ordered], env)

    async def _run(self, arguments: Sequence[str], env: Mapping[str, str | None]) -> dict[str, str]:
        seconds = TIMEOUT * (PATIENCE if busy() else 1)
        async with self._testbed.started("-c", SOURCE, *arguments, env=env, name="import") as process:
            ended, _ = await asyncio.wait({process.exit}, timeout=seconds)
            said = [line.removeprefix(MARK) for line in process.log.splitlines() if line.startswith(MARK)]
        told = {name: error for name, _, error in (line.partition(": ") for line in said)}
        untold = ENDED if ended else f"not done after {seconds:.0f} s with all modules"
        return {name: told.get(name, untold) for name in self.modules if told.get(name, untold)}


def modules_in(folder: Path) -> list[str]:
    """The names of the modules in the packages of a folder, sorted."""
    packages = {folder / "app", *(path.parent for path in folder.glob("*/__init__.py"))}
    names = set()
    for package in packages:
        for path in package.rglob("*.py") if package.name not in NOT_THE_APP else ():
            parts = path.relative_to(folder).with_suffix("").parts
            if NOT_THE_APP.isdisjoint(parts) and parts[-1] != "__main__":
                names.add(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return sorted(names)
