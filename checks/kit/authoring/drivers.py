"""Runs a driver's own tests directly and through the proxy, and compares what comes out."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from checks.kit.authoring.driver_outcomes import CHOSEN, OUTCOMES, read_outcomes
from checks.kit.authoring.driver_suites import IMPORTED, Access, Suite
from checks.kit.lessons.errors import WorkbookError
from checks.kit.lessons.paths import STATE

REPEATS = 3
"""How often a test whose outcome differs runs again on either side: some depend on luck."""

Outcomes = dict[str, str]
"""By the name of a test, such as `tests/test_copy.py::TestCopyFrom::test_x`: passed, failed or skipped."""


@dataclass(slots=True)
class Comparison:
    """The outcomes of the first run of all tests, and those of all runs of the tests that differed."""

    direct: Outcomes
    proxied: Outcomes
    repeated: dict[str, tuple[list[str], list[str]]] = field(default_factory=dict)

    @property
    def differing(self) -> list[str]:
        """Tests that never came out the same on both sides."""
        return [test for test, (direct, proxied) in self.repeated.items() if not set(direct) & set(proxied)]


async def compare(suite: Suite, source: Path, files: list[str], select: str = "") -> Comparison:
    """Runs the tests of `files`, on a server of our own; `select` is an expression as for `pytest -k`."""
    from checks.kit.postgres import find
    from checks.kit.wire import open_proxy

    # of its own, for the tests make roles and settings that belong to all of a server
    server = await asyncio.to_thread(find, STATE / "drivers", {})
    try:
        async with server.database("", "drivers") as database, open_proxy(server.address) as wire:
            await database.admin.execute(f'ALTER ROLE "{database.role}" SUPERUSER')
            for statement in suite.prepare:
                await database.admin.execute(statement)
            direct = Access.to(database, server.address.host, server.address.port)
            proxied = Access.to(database, wire.host, wire.port)
            found = Comparison(
                await _run(suite, source, direct, files, select), await _run(suite, source, proxied, files, select)
            )
            for test in sorted(found.direct.keys() | found.proxied.keys()):
                if found.direct.get(test) != found.proxied.get(test):
                    found.repeated[test] = ([found.direct.get(test, "missing")], [found.proxied.get(test, "missing")])
            for _ in range(REPEATS if found.repeated else 0):
                for side, access in enumerate((direct, proxied)):
                    outcomes = await _run(suite, source, access, _files(found.repeated), chosen=list(found.repeated))
                    for test, runs in found.repeated.items():
                        runs[side].append(outcomes.get(test, "missing"))
            return found
    finally:
        server.close()


def _files(tests: Iterable[str]) -> list[str]:
    return sorted({test.partition("::")[0] for test in tests})


async def _run(
    suite: Suite, source: Path, access: Access, files: list[str], select: str = "", chosen: list[str] | None = None
) -> Outcomes:
    with tempfile.TemporaryDirectory(prefix="drivers-") as scratch:
        written, only, ini = (Path(scratch) / name for name in ("outcomes", "chosen", "pytest.ini"))
        ini.write_text("[pytest]\n")
        environment = os.environ | access.environment() | {OUTCOMES: str(written)}
        environment["PYTHONPATH"] = str(source / IMPORTED)
        if chosen is not None:
            only.write_text(json.dumps(chosen))
            environment[CHOSEN] = str(only)
        # -s: otherwise SQLAlchemy's tests look for a library beside them
        command = [sys.executable, "-s", "-m", "pytest", "-p", "checks.kit.authoring.driver_outcomes"]
        command += ["-c", str(source / "pyproject.toml" if suite.own_configuration else ini), "--rootdir", str(source)]
        command += ["--disable-plugin-autoload", "-o", f"cache_dir={scratch}/cache", "-k", select]
        command += ["--continue-on-collection-errors", "--maxfail=0", "--tb=short"]
        process = await asyncio.create_subprocess_exec(
            *command, *suite.arguments, *suite.options(access), *files,
            cwd=source, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        try:
            output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode not in (0, 1):
            raise WorkbookError(
                f"pytest could not run the tests of {suite.name} (exit code {process.returncode}):\n"
                f"{output.decode(errors='replace')[-2000:]}"
            )
        return read_outcomes(written)
