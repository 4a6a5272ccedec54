"""The learner's processes, seen from outside: each has a name and a log, can be signaled, and is killed at the end."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGTERM, Signals
from typing import Protocol

from checks.kit.service.bytecode import drop_stale
from checks.kit.service.inside.spec import AppSpec, ProcessSpec, environment
from checks.kit.service.launcher import RESPONSE_TIMEOUT, Launcher, Process, text_of

APP = "app"
"""The name of the first app that a check starts."""

PROBE_LOGGED = "WARNING:  Invalid HTTP request received.\n"
"""What uvicorn prints for each connection of `App.flush`."""

KILL_TIMEOUT = 30.0
"""Seconds for a process that was killed to be reported as ended; a bound for failures."""

_numbers = itertools.count(1)


class Note(Protocol):
    """Receives a sentence for each thing that a check did.

    `detail` is what repeats it: a request in full, or ids. `is_response` marks the report of an HTTP response, and
    `endpoint` is the learner's function that made it, as `path:line:function`, where it is known.
    """

    def __call__(self, sentence: str, *, detail: str = "", is_response: bool = False, endpoint: str = "") -> None: ...


def ignore(sentence: str, *, detail: str = "", is_response: bool = False, endpoint: str = "") -> None:
    """A Note that keeps nothing."""


@dataclass(slots=True)
class Sent:
    """A request of a check: `began` and `ended` are seconds of time.perf_counter.

    `outcome` is the status of the response, or says what happened instead.
    """

    what: str
    began: float
    ended: float | None = None
    outcome: str = "no response yet"


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended: its exit code (negative: ended by that signal) and the seconds it took."""

    code: int
    seconds: float


class RunningProcess:
    """A process of the learner's, also after it has ended. `name` is how a verdict calls it: `app`, `app.worker`.

    `uvicorn` says that uvicorn runs in it, which sends itself the signal again when it has shut down.
    """

    def __init__(self, name: str, process: Process, log: Path, note: Note = ignore, *, uvicorn: bool = False) -> None:
        self.name = name
        self._process = process
        self._log = log
        self._note = note
        self._uvicorn = uvicorn
        self._signaled = False

    @property
    def pid(self) -> int:
        """The main process's number; inside a sandbox it means something there only."""
        return self._process.pid

    @property
    def exit(self) -> asyncio.Future[int]:
        """Its exit code, once it has ended; negative: ended by that signal. Shield it where it is waited for."""
        return self._process.exit

    @property
    def log(self) -> str:
        """Everything that it printed so far, to standard output and standard error, in order."""
        return text_of(self._log).replace(PROBE_LOGGED, "")

    @property
    def failed(self) -> bool:
        """Whether it has ended by itself, with another exit code than 0; nobody sent it a signal."""
        return self.exit.done() and self.exit.result() != 0 and not self._signaled

    def signal(self, signum: int) -> None:
        """Sends a signal to the main process, as a process manager does; nothing if it has ended."""
        self._signaled = self._signaled or not self.exit.done()
        self._note(f"{Signals(signum).name} sent to {self._called}")
        self._process.signal(signum)

    async def stop(self, signum: int = SIGTERM, within: float = RESPONSE_TIMEOUT) -> Exit | None:
        """Sends a signal and waits for the end; None: it was still running after `within` seconds."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        self.signal(signum)
        try:
            code = await asyncio.wait_for(asyncio.shield(self.exit), within)
        except TimeoutError:
            self._note(f"{self._called} was still running after {within:.0f} s")
            return None
        seconds = loop.time() - began
        how = f", with exit code {code}" if code >= 0 else f", by {Signals(-code).name}"
        if code == -signum and self._uvicorn:
            how = ""  # uvicorn sends itself the signal again when it has shut down
        self._note(f"{self._called} ended {seconds:.1f} s after {Signals(signum).name}{how}")
        return Exit(code, seconds)

    async def terminate(self, within: float = RESPONSE_TIMEOUT) -> int | None:
        """Sends SIGTERM, as a deploy does, and returns the exit code; None: still running after `within` seconds."""
        ended = await self.stop(SIGTERM, within)
        return None if ended is None else ended.code

    def kill(self) -> Awaitable[int]:
        """Sends SIGKILL to the whole process group, as `kill -9`; `await process.kill()` returns when it has ended."""
        if not self.exit.done():
            self._signaled = True
            self._note(f"SIGKILL sent to {self._called}")
        self.end()
        return asyncio.shield(self.exit)

    def end(self) -> None:
        """For the kit: sends SIGKILL to the whole process group without a word."""
        self._process.kill()

    @property
    def _called(self) -> str:
        return "the app" if self.name == APP else self.name


@dataclass(frozen=True, slots=True)
class Workspace:
    """Where the learner's processes run: one for each check, shared by all that the check starts.

    `folder` is the lesson's, `scratch` takes logs and sockets, `pycache` compiled files (None: there are none).
    `note` receives what is done with the processes; `started` has all of them, oldest first. `requests` are those that
    were sent to the apps among them.
    """

    launcher: Launcher
    folder: Path
    scratch: Path
    pycache: Path | None = None
    note: Note = ignore
    started: list[RunningProcess] = field(default_factory=list)
    requests: list[Sent] = field(default_factory=list)
    _names: Counter[str] = field(default_factory=Counter)

    def spec(self, env: Mapping[str, str], *command: str) -> ProcessSpec:
        """What to run: `python -m command[0] …` with `env`, its output in a file of its own."""
        self.scratch.mkdir(mode=0o700, exist_ok=True)  # systems delete temporary files that are some days old
        if self.pycache:
            drop_stale(self.folder, self.pycache)
        return ProcessSpec(
            folder=str(self.folder),
            log=str(self.scratch / f"{next(_numbers)}.log"),
            env=environment(env),
            command=command,
            pycache=str(self.pycache) if self.pycache else "",
        )

    def name_for(self, name: str) -> str:
        """What to call the next process: `name`, or `name (2)` for a second one."""
        self._names[name] += 1
        return name if self._names[name] == 1 else f"{name} ({self._names[name]})"

    @asynccontextmanager
    async def process(self, name: str, spec: ProcessSpec) -> AsyncIterator[RunningProcess]:
        """Starts a process; at the end of the block it is killed with its whole process group."""
        launched = await self.launcher.launch(spec)
        process = RunningProcess(name, launched, Path(spec.log), self.note, uvicorn=isinstance(spec, AppSpec))
        self.started.append(process)
        try:
            yield process
        finally:
            process.end()
            await asyncio.wait({process.exit}, timeout=KILL_TIMEOUT)
            if not process.exit.done():
                self.launcher.give_up()
