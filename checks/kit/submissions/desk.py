"""One place where units are graded, one after the other: a server, a warm grader, and somebody who watches."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from pathlib import Path
from typing import IO, Any

from checks.kit import catalogue, head_start
from checks.kit.catalogue import STATE, Lesson
from checks.kit.live import Ear, Growing
from checks.kit.postgres.embedded import raze
from checks.kit.postgres.find import STRANGERS
from checks.kit.report.model import Report
from checks.kit.service import sandbox
from checks.kit.service.launcher import Process
from checks.kit.service.sandbox import Confinement
from checks.kit.submissions.model import Mark, complete
from checks.kit.submissions.units import Rules, Unit, fingerprint
from checks.kit.submissions.warden import Warden
from checks.kit.warm import Graders, graders


class GraderFailed(Exception):
    """The grader, not what it graded, came to no verdict; its last words."""


class UnfitMachine(Exception):
    """This machine cannot grade by the rules of the run."""


class Desk:
    """`sandbox` and `slot` as in Confinement. Use `open_desk`."""

    def __init__(self, warm: Graders, warden: Warden, rules: Rules, sandbox: str, slot: int) -> None:
        self._warm = warm
        self._warden = warden
        self._rules = rules
        self._sandbox = sandbox
        self._slot = slot
        self._numbers = itertools.count(1)

    async def grade(self, unit: Unit) -> Mark:
        """Grades one unit in a folder of its own. Raises GraderFailed, never anything that the unit brought along."""
        lesson = catalogue.lesson(unit.lesson)
        number = next(self._numbers)
        root = self._warm.scratch / f"unit-{number}"
        began = time.perf_counter()
        try:
            folder = _lay_out(root, lesson, unit)
            report, stopped, said = await self._run(lesson, folder, number)
        except Exception:
            await self._warden.clear(stopped=True)
            raise
        finally:
            shutil.rmtree(root, ignore_errors=True)
        await self._warden.clear(stopped=bool(stopped))
        report = report or Report(lesson.number, lesson.title, "")
        if not stopped and len(report.results) < len(lesson.checks):
            raise GraderFailed(said)
        relative = _relative(report, root)
        relative.target = f"lessons/{lesson.name}"
        return Mark(complete(relative, lesson, stopped), round(time.perf_counter() - began, 1), stopped)

    async def _run(self, lesson: Lesson, folder: Path, number: int) -> tuple[Report | None, str, str]:
        """The report as far as it got, why it got no further, and what the grader printed."""
        growing = Growing()

        def hear(line: bytes) -> None:
            growing.feed(line)

        ear = Ear(hear)
        log = self._warm.scratch / f"unit-{number}.log"
        confinement = Confinement(str(folder), self._sandbox, self._slot)
        process = await self._warm.start(
            str(lesson.checks_folder), "--target", str(folder.parent), "-p", "no:cacheprovider",
            "--live", await ear.open(self._warm.scratch / f"unit-{number}.sock"),
            log=log, environ=confinement.to_environ(),
        )  # fmt: skip
        try:
            stopped = await self._watch(process)
            await ear.heard_all()
        finally:
            process.kill()
            ear.close()
        said = log.read_text(encoding="utf-8", errors="replace").strip()
        return growing.report, stopped, said

    async def _watch(self, process: Process) -> str:
        """Waits for the grader's end, or brings it about; says why."""
        guarding = asyncio.ensure_future(self._warden.guard(process.pid))
        either: set[asyncio.Future[Any]] = {guarding, process.exit}
        try:
            async with asyncio.timeout(self._rules.seconds):
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            why = "" if process.exit.done() else guarding.result()
        except TimeoutError:
            why = f"it took more than {self._rules.seconds} s"
        finally:
            guarding.cancel()
            await asyncio.wait({guarding})
        return await self._stop(process, why) if why else ""

    async def _stop(self, process: Process, why: str) -> str:
        process.kill()
        await process.exit
        return why


@asynccontextmanager
async def open_desk(rules: Rules, share: int, environ: Mapping[str, str] = os.environ) -> AsyncIterator[Desk]:
    """A desk with an embedded PostgreSQL of its own, unless the environment names a server, which `share` desks use.

    Raises UnfitMachine, PostgresUnavailable.
    """
    way, sentence = sandbox.way()
    if rules.sandboxed and not way:
        raise UnfitMachine(f"This run grades in sandboxes, and here there is none: {sentence}.")
    if (here := fingerprint()) != rules.kit:
        raise UnfitMachine(f"The checks here ({here}) are not those of this run ({rules.kit}). Bring them up to date.")
    await asyncio.to_thread(_compile)
    with _own_slot() as slot:
        data = STATE / "grade" / f"desk-{slot}"
        settings = {**environ, STRANGERS: "1", "WORKBOOK_DATA": str(data)}
        if environ.get("DATABASE_URL") or environ.get("WORKBOOK_POSTGRES", "embedded") != "embedded":
            settings[STRANGERS] = str(share)
        else:
            await asyncio.to_thread(raze, data)  # whatever a run that was killed has left there
        async with graders(settings, apps=False) as warm, Warden.watching(warm.server, data, settings) as warden:
            yield Desk(warm, warden, rules, way if rules.sandboxed else "", slot)


@cache
def _compile() -> None:
    """Imports once what apps need where the compiled files can be written, which is not so in a sandbox."""
    control, nursery = head_start.start()
    control.close()
    nursery.wait()


@contextmanager
def _own_slot() -> Iterator[int]:
    """The lowest number that no other desk of this machine has; the kernel frees it however we end.

    As root it stands for an account, which desks of other checkouts must not share.
    """
    folder = STATE / "grade"
    folder.mkdir(parents=True, exist_ok=True)
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        with contextlib.suppress(OSError):  # where /run is not to be written to, nobody else is root either
            Path("/run/bookshop").mkdir(exist_ok=True)
            folder = Path("/run/bookshop")
    for slot in itertools.count():
        with (folder / f"desk-{slot}.lock").open("ab") as file:
            if _locked(file):
                yield slot
                return


def _locked(file: IO[bytes]) -> bool:
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except ImportError:  # Windows: one run at a time
        return True
    return True


def _lay_out(root: Path, lesson: Lesson, unit: Unit) -> Path:
    """Writes the unit's files where a learner has them; whoever runs the app may read them.

    Tables that are not the learner's to change are ours: in others, count() may be whatever its owner likes.
    """
    folder = root / "lessons" / lesson.name
    ours = lesson.folder / lesson.schema
    files = dict(unit.files)
    if ours.is_file() and lesson.schema not in lesson.edit:
        files = {name: content for name, content in files.items() if not name.startswith(f"{lesson.schema}/")}
        files[lesson.schema] = ours.read_bytes()
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    folder.mkdir(parents=True, exist_ok=True)
    for path in (folder, *folder.rglob("*")):  # whatever our umask is
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


def _relative(report: Report, root: Path) -> Report:
    """Without the folder in which it was graded: the report that the learner has seen."""

    def cut(value: object) -> object:
        if isinstance(value, str):
            return value.replace(f"{root}{os.sep}", "")
        if isinstance(value, dict):
            return {key: cut(one) for key, one in value.items()}
        return [cut(one) for one in value] if isinstance(value, list) else value

    cleaned = cut(report.to_dict())
    assert isinstance(cleaned, dict)
    return Report.from_dict(cleaned)
