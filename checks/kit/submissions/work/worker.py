"""A worker grades jobs, one after another: it has a PostgreSQL server, a warm grader to fork from, and a watchdog."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import IO, Any

from checks.kit.grading.pool import GraderPool, graders
from checks.kit.grading.scheduler import AMONG_OTHERS
from checks.kit.lessons.errors import WorkbookError
from checks.kit.lessons.lesson import Lesson, find_lesson
from checks.kit.lessons.paths import STATE
from checks.kit.postgres.embedded import destroy
from checks.kit.postgres.roles import UNTRUSTED
from checks.kit.report.live import LiveReceiver, LiveReport
from checks.kit.report.model import Report
from checks.kit.service import prestart, sandbox
from checks.kit.service.launcher import Process
from checks.kit.service.sandbox import SandboxSpec
from checks.kit.submissions.jobs import Job, RunSettings, fingerprint
from checks.kit.submissions.model import Grade, complete
from checks.kit.submissions.work.machine_faults import disk_full
from checks.kit.submissions.work.watchdog import Watchdog, open_watchdog


class GraderFailed(Exception):
    """The grader came to no verdict, through no fault of the submission. The message is what the grader printed."""


class UnfitMachine(WorkbookError):
    """This machine cannot grade with the settings of the run."""


OnResult = Callable[[Job, Grade | GraderFailed], None]
"""Called once for each job, when it has ended."""


class Worker:
    """Grades one job at a time. Use `open_worker`.

    `sandbox` and `slot` are those of a SandboxSpec: the kind of sandbox, and the number of this worker.
    """

    def __init__(self, pool: GraderPool, watchdog: Watchdog, settings: RunSettings, sandbox: str, slot: int) -> None:
        self._pool = pool
        self._watchdog = watchdog
        self._settings = settings
        self._sandbox = sandbox
        self._slot = slot
        self._numbers = itertools.count(1)

    async def grade(self, job: Job) -> Grade:
        """Grades one job in a folder of its own. Raises GraderFailed; nothing that the files contain raises."""
        lesson = find_lesson(job.lesson)
        number = next(self._numbers)
        root = self._pool.scratch / f"job-{number}"
        start = time.perf_counter()
        try:
            server_start = await self._watchdog.server_start()
            folder = _lay_out(root, lesson, job)
            report, stopped, output = await self._run(lesson, folder, number)
            if server_start and not stopped and await self._watchdog.server_start() != server_start:
                raise GraderFailed("PostgreSQL crashed or was ended while the checks ran")
            if report and (fault := disk_full(report)):
                raise GraderFailed(f"PostgreSQL has no room on its disk: {fault}")
        except Exception:
            await self._watchdog.clear(stopped=True)
            raise
        finally:
            shutil.rmtree(root, ignore_errors=True)
        await self._watchdog.clear(stopped=bool(stopped))
        report = report or Report(lesson.number, lesson.title, "")
        if not stopped and len(report.results) < len(lesson.checks):
            raise GraderFailed(output)
        report = _without_folder(report, root)
        report.target = f"lessons/{lesson.name}"
        seconds = round(time.perf_counter() - start, 1)
        return Grade(complete(report, lesson, stopped), seconds, stopped, datetime.now(UTC).replace(microsecond=0))

    async def _run(self, lesson: Lesson, folder: Path, number: int) -> tuple[Report | None, str, str]:
        """The report as far as it got, the limit that stopped it ("" if none did), and what the grader printed."""
        live_report = LiveReport()

        def on_line(line: bytes) -> None:
            live_report.feed(line)

        receiver = LiveReceiver(on_line)
        log = self._pool.scratch / f"job-{number}.log"
        sandbox_spec = SandboxSpec(str(folder), self._sandbox, self._slot)
        process = await self._pool.start(
            str(lesson.checks_folder), "--target", str(folder.parent), "--at-once", str(AMONG_OTHERS),
            "-p", "no:cacheprovider",
            "--live", await receiver.open(self._pool.scratch / f"job-{number}.sock"),
            log=log, environ=sandbox_spec.to_environ(),
        )  # fmt: skip
        try:
            stopped = await self._wait(process)
            await receiver.drain()
        finally:
            process.kill()
            receiver.close()
        output = log.read_text(encoding="utf-8", errors="replace").strip()
        return live_report.report, stopped, output

    async def _wait(self, process: Process) -> str:
        """Waits until the grader ends, or stops it at a limit; returns which one ("" if none)."""
        watching = asyncio.ensure_future(self._watchdog.watch(process.pid))
        either: set[asyncio.Future[Any]] = {watching, process.exit}
        try:
            async with asyncio.timeout(self._settings.seconds):
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            reason = "" if process.exit.done() else watching.result()
        except TimeoutError:
            reason = f"it took more than {self._settings.seconds} s"
        finally:
            watching.cancel()
            await asyncio.wait({watching})
        if reason:
            process.kill()
            await process.exit
        return reason


@asynccontextmanager
async def open_worker(
    settings: RunSettings, share: int, environ: Mapping[str, str] = os.environ
) -> AsyncIterator[Worker]:
    """A worker with an embedded PostgreSQL of its own, unless `environ` names a server, which `share` workers use.

    Raises UnfitMachine and PostgresUnavailable.
    """
    way, sentence = sandbox.detect()
    if settings.sandboxed and not way:
        raise UnfitMachine(f"This run grades in sandboxes, and this machine has none: {sentence}.")
    if (kit := fingerprint()) != settings.kit:
        raise UnfitMachine(
            f"The checks here ({kit}) differ from those of this run ({settings.kit}). Update the checkout "
            "that is behind, and run the same command again."
        )
    await asyncio.to_thread(_compile)
    with _own_slot() as slot:
        data = STATE / "grade" / f"worker-{slot}"
        server_environ = {**environ, UNTRUSTED: "1", "WORKBOOK_DATA": str(data)}
        if environ.get("DATABASE_URL") or environ.get("WORKBOOK_POSTGRES", "embedded") != "embedded":
            server_environ[UNTRUSTED] = str(share)
        else:
            await asyncio.to_thread(destroy, data)  # a run that was killed may have left a server there
        async with (
            graders(server_environ, apps=False) as pool,
            open_watchdog(pool.server, data, server_environ) as watchdog,
        ):
            yield Worker(pool, watchdog, settings, way if settings.sandboxed else "", slot)


@cache
def _compile() -> None:
    """Imports once what apps need, here where Python can write the compiled files; in a sandbox it cannot."""
    control, fork_server = prestart.start_fork_server()
    control.close()
    fork_server.wait()


@contextmanager
def _own_slot() -> Iterator[int]:
    """The lowest number that no other worker on this machine has. The kernel frees it, however we end.

    For root, the number chooses the user that runs the app. Workers of other checkouts must not share it, so the lock
    files are then in one folder for the whole machine.
    """
    folder = STATE / "grade"
    folder.mkdir(parents=True, exist_ok=True)
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        with contextlib.suppress(OSError):  # if root cannot write to /run, this container has no other root
            Path("/run/bookshop").mkdir(exist_ok=True)
            folder = Path("/run/bookshop")
    for slot in itertools.count():
        with (folder / f"worker-{slot}.lock").open("ab") as file:
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


def _lay_out(root: Path, lesson: Lesson, job: Job) -> Path:
    """Writes the files of the job into lessons/lesson_NN below `root`, readable for the user that runs the app.

    A schema that learners are not asked to change is replaced by ours: the kit counts rows in these tables, and in a
    schema of the learner's, a function or a view could give any number.
    """
    folder = root / "lessons" / lesson.name
    our_schema = lesson.folder / lesson.schema
    files = dict(job.files)
    if our_schema.is_file() and lesson.schema not in lesson.edit:
        files = {name: content for name, content in files.items() if not name.startswith(f"{lesson.schema}/")}
        files[lesson.schema] = our_schema.read_bytes()
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    folder.mkdir(parents=True, exist_ok=True)
    for path in (folder, *folder.rglob("*")):  # whatever our umask is
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


def _without_folder(report: Report, root: Path) -> Report:
    """The report without the folder in which it was graded: paths are those that the learner knows."""

    def cut(value: object) -> object:
        if isinstance(value, str):
            return value.replace(f"{root}{os.sep}", "")
        if isinstance(value, dict):
            return {key: cut(item) for key, item in value.items()}
        return [cut(item) for item in value] if isinstance(value, list) else value

    shortened = cut(report.to_dict())
    assert isinstance(shortened, dict)
    return Report.from_dict(shortened)
