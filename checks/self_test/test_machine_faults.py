"""Faults of the machine are told from those of a submission: a full disk, and a server that crashed meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from checks.kit.lessons.errors import WorkbookError
from checks.kit.postgres import find
from checks.kit.postgres.embedded import destroy
from checks.kit.report.model import Finding, Outcome, Report, Result
from checks.kit.submissions.jobs import RunSettings
from checks.kit.submissions.work import watchdog as watchdog_module
from checks.kit.submissions.work.machine_faults import disk_full
from checks.kit.submissions.work.watchdog import open_watchdog
from checks.kit.submissions.work.worker import open_worker
from checks.kit.testbed.evidence import Evidence, Line


@pytest.mark.parametrize(
    "text",
    [
        'DiskFullError: could not write to file "base/16464/3394": No space left on device',
        'could not extend file "base/5/16403_fsm": No space left on device',
        "could not write block 12 of temporary file: No space left on device",
        'could not resize shared memory segment "/PostgreSQL.7" to 8388608 bytes: No space left on device',
        'ERROR:  could not create file "pg_wal/xlogtemp.77": No space left on device',
    ],
)
@pytest.mark.parametrize("in_a_log", [False, True])
def test_a_full_disk_of_postgresql_is_no_fault_of_the_submission(text: str, in_a_log: bool) -> None:
    result = Result("test_x", "x", Outcome.FAILED, Finding("500" if in_a_log else text, "It matters."))
    if in_a_log:
        result.evidence = [Evidence("What the app printed", [Line("Traceback"), Line(text)])]
    found = disk_full(Report(0, "", "", results=[result]))
    assert found and found in text


@pytest.mark.parametrize(
    "text",
    [
        "OSError: [Errno 28] No space left on device: '/tmp/export.csv'",
        "could not write to file",
        "could not save: No space left on device",
    ],
)
def test_a_full_disk_of_the_sandbox_is_one(text: str) -> None:
    result = Result("test_x", "x", Outcome.FAILED, Finding(text, "It matters."))
    assert disk_full(Report(0, "", "", results=[result])) == ""


async def test_a_crash_of_the_server_is_noticed_after_it_has_recovered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = {**os.environ, "WORKBOOK_DATA": str(tmp_path / "server"), "WORKBOOK_POSTGRES": "embedded"}
    environ.pop("DATABASE_URL", None)
    server = await asyncio.to_thread(find, tmp_path, environ)
    try:
        async with open_watchdog(server, tmp_path / "server", environ) as watchdog:
            before = await watchdog.server_start()
            assert before and await watchdog.server_start() == before
            connection = await server.connect()
            os.kill(connection.get_server_pid(), signal.SIGKILL)
            async with asyncio.timeout(60):
                while not connection.is_closed():
                    await asyncio.sleep(0.01)
            after = await watchdog.server_start()
            assert after not in ("", before)
            await asyncio.to_thread(destroy, tmp_path / "server")
            monkeypatch.setattr(watchdog_module, "GONE_TIMEOUT", 1.0)
            assert await watchdog.server_start() == ""
    finally:
        server.close()


async def test_checks_that_were_changed_meanwhile_end_a_run_with_a_sentence() -> None:
    with pytest.raises(WorkbookError, match="differ from those of this run"):
        async with open_worker(RunSettings("of another checkout", False, 10), 1):
            pass
