"""The processes of `workbook serve`: the app, and the worker that a lesson may have beside it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from checks.kit.service.app import App
from checks.kit.service.process import Exit, RunningProcess
from checks.kit.testbed.testbed import Testbed


@dataclass(frozen=True, slots=True)
class Processes:
    """What is served: the app, and the worker beside it where the lesson has one."""

    app: App
    worker: RunningProcess | None = None

    def __iter__(self) -> Iterator[RunningProcess]:
        yield self.app.process
        if self.worker is not None:
            yield self.worker

    async def stop(self, within: float) -> Exit | None:
        """Sends SIGTERM to both; how the last one ended, None if one still runs after `within` seconds."""
        stopping = (process.stop(within=within) for process in self if not process.exit.done())
        last: Exit | None = None
        for ended in await asyncio.gather(*stopping):
            if ended is None:
                return None
            last = ended if last is None or ended.seconds > last.seconds else last
        return last


@asynccontextmanager
async def start_processes(testbed: Testbed, **options: Any) -> AsyncIterator[Processes]:
    """Starts the app and, when that accepts requests, the worker; both are killed at the end."""
    async with testbed.running(**options) as app:
        if not testbed.lesson.worker:
            yield Processes(app)
            return
        async with testbed.started(testbed.lesson.worker) as worker:
            yield Processes(app, worker)


def base_name(name: str) -> str:
    """`app.worker` for `app.worker (2)`: with each save there is a new one."""
    return name.partition(" (")[0]
