"""Drivers and libraries whose own tests `workbook dev drivers` runs: where the tests come from, how they start."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from importlib.metadata import metadata, version
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from checks.kit.lessons.errors import WorkbookError
from checks.kit.lessons.paths import STATE

if TYPE_CHECKING:
    from checks.kit.postgres import Database

IMPORTED = "imported"
"""The folder, beside the tests, with packages that they import."""


@dataclass(frozen=True, slots=True)
class Access:
    """How the tests reach their database: directly, or through the proxy."""

    host: str
    port: int
    user: str
    password: str
    database: str

    @classmethod
    def to(cls, database: Database, host: str, port: int) -> Access:
        return cls(host, port, database.role, database.password, database.name)

    def url(self, scheme: str) -> str:
        """A URL of SQLAlchemy; its host may be the folder of a Unix socket."""
        login = f"{quote(self.user)}:{quote(self.password)}"
        return f"{scheme}://{login}@/{quote(self.database)}?host={quote(self.host, safe='')}&port={self.port}"

    def environment(self) -> dict[str, str]:
        """The variables that libpq and asyncpg read."""
        return {
            "PGHOST": self.host,
            "PGPORT": str(self.port),
            "PGUSER": self.user,
            "PGPASSWORD": self.password,
            "PGDATABASE": self.database,
        }


def _no_options(access: Access) -> list[str]:
    return []


@dataclass(frozen=True, slots=True)
class Suite:
    """The tests of `distribution`, of the version that is installed."""

    name: str
    distribution: str
    fetch: Callable[[Suite, Path], None]
    """Puts the source with the tests into a folder."""
    tests: tuple[str, ...]
    """What runs, relative to the source: folders, and files in them."""
    needed: tuple[str, ...]
    """What of the source the tests need, their folders included."""
    imported: tuple[str, ...] = ()
    """Packages that the tests import besides the driver and pytest."""
    left_out: tuple[str, ...] = ()
    """Files, such as `test_typing`, that do not connect to a server."""
    arguments: tuple[str, ...] = ()
    """For pytest."""
    options: Callable[[Access], list[str]] = _no_options
    """For pytest as well, where they depend on the database."""
    own_configuration: bool = False
    """Whether pytest reads the configuration that the source has."""
    prepare: tuple[str, ...] = ()
    """Statements that a superuser runs in the database first."""

    @property
    def release(self) -> str:
        return version(self.distribution)

    def source(self, folder: Path = STATE / "drivers") -> Path:
        """The folder with the tests; they are fetched once. Raises WorkbookError if they cannot be fetched."""
        source = folder / f"{self.distribution}-{self.release}"
        if not all((source / one).is_dir() for one in (self.tests[0], IMPORTED)):
            with tempfile.TemporaryDirectory(prefix="drivers-") as scratch:
                self.fetch(self, draft := Path(scratch) / "source")
                self.add_imported(draft)
                shutil.rmtree(source, ignore_errors=True)
                source.parent.mkdir(parents=True, exist_ok=True)
                shutil.move(draft, source)
        return source

    def add_imported(self, source: Path) -> None:
        """Installs what the tests import into a folder beside them."""
        (source / IMPORTED).mkdir(exist_ok=True)
        if self.imported:
            run(self, _uv(), "pip", "install", "--target", str(source / IMPORTED), *self.imported)

    def files(self, source: Path) -> dict[str, list[str]]:
        """The files of tests that run, relative to the source, by name; several folders may have one of a name."""
        files: dict[str, list[str]] = {}
        for one in self.tests:
            for path in [source / one] if (source / one).is_file() else sorted((source / one).rglob("test_*.py")):
                if path.stem not in self.left_out:
                    files.setdefault(path.stem, []).append(path.relative_to(source).as_posix())
        return files

    def choose(self, source: Path, names: Collection[str]) -> list[str]:
        """The files with these names, such as `test_copy`; all if there are none."""
        known = self.files(source)
        unknown = [name for name in names if name not in known]
        if unknown:
            raise WorkbookError(f"{self.name} has no tests named {', '.join(unknown)}. It has: {', '.join(known)}.")
        return [path for name in (names or known) for path in known[name]]


def run(suite: Suite, *command: str) -> None:
    """Runs a program that fetches something; raises WorkbookError with its last line if it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise WorkbookError(
            f"The tests of {suite.name} could not be fetched. The last line of {Path(command[0]).name} was: {said}\n"
            f"Most likely there is no network. To see more: {' '.join(command)}"
        )


def _uv() -> str:
    if (uv := shutil.which("uv")) is None:
        raise WorkbookError("uv is not installed, and it fetches the tests of drivers. Install it: pip install uv")
    return uv


def from_source_distribution(suite: Suite, to: Path) -> None:
    """Fetches the source distribution, and keeps what the tests need: the driver itself is the installed one."""
    name = suite.distribution
    with tempfile.TemporaryDirectory(prefix="drivers-") as scratch:
        wanted = f"{name}=={suite.release}"
        run(suite, _uv(), "tool", "run", "pip", "download", "--no-deps", "--no-binary", name, "--dest", scratch, wanted)
        [archive] = Path(scratch).glob("*.tar.gz")
        with tarfile.open(archive) as opened:
            # without the first folder, which has the name of the archive
            members = [
                one.replace(name=inside)
                for one in opened
                if (inside := one.name.partition("/")[2])
                and any(inside == path or inside.startswith(f"{path}/") for path in suite.needed)
            ]
            opened.extractall(to, members, filter="data")


def from_repository(suite: Suite, to: Path) -> None:
    """Clones the tag of the installed version: the tests are in no archive that a package index has."""
    if (git := shutil.which("git")) is None:
        raise WorkbookError(f"git is not installed, and it fetches the tests of {suite.name}.")
    try:
        run(suite, git, "clone", "--quiet", "--depth", "1", "--branch", suite.release, repository(suite), str(to))
    except WorkbookError as error:
        raise WorkbookError(
            f"{error}\nIf you have a clone of {suite.distribution} already: "
            f"workbook dev drivers {suite.name} --source FOLDER"
        ) from None


def repository(suite: Suite) -> str:
    """The URL of its repository, as the installed package names it."""
    urls = dict(line.split(", ", 1) for line in metadata(suite.distribution).get_all("Project-URL") or [])
    return str(next(urls[label] for label in ("Code", "Source", "Source Code", "Repository") if label in urls))


def _psycopg(access: Access) -> list[str]:
    from psycopg.conninfo import make_conninfo

    return [
        "--test-dsn",
        make_conninfo(
            host=access.host, port=access.port, user=access.user, password=access.password, dbname=access.database
        ),
    ]


ASYNCPG = Suite(
    "asyncpg",
    "asyncpg",
    from_source_distribution,
    tests=("tests",),
    needed=("tests",),
    imported=("distro",),
    left_out=("test__environment", "test__sourcecode", "test_test", "test_subinterpreters"),
    arguments=("--import-mode=importlib",),
)
PSYCOPG = Suite(
    "psycopg",
    "psycopg",
    from_repository,
    tests=("tests",),
    needed=("tests", "pyproject.toml"),
    imported=("psycopg-pool",),
    left_out=("test_typing", "test_dns", "test_dns_srv"),
    arguments=("-p", "pytest_asyncio.plugin", "-p", "anyio.pytest_plugin", "--ignore=tests/crdb", "-m", "not slow"),
    options=_psycopg,
    own_configuration=True,
)


def _sqlalchemy(name: str, scheme: str) -> Suite:
    return Suite(
        name,
        "sqlalchemy",
        from_source_distribution,
        tests=("test/dialect/postgresql", "test/dialect/test_suite.py", "test/engine", "test/ext/asyncio"),
        # its tests are started by a file of the library, which they look for beside them
        needed=("test", "lib/sqlalchemy/testing/plugin", "setup.cfg"),
        arguments=("-p", "checks.kit.authoring.driver_extensions"),
        options=lambda access: ["--dburi", access.url(scheme)],
        prepare=(
            "CREATE SCHEMA test_schema",
            "CREATE SCHEMA test_schema_2",
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_text_search_config = %L',"
            " current_database(), 'pg_catalog.english'); END $$",
        ),
    )


SUITES = {
    suite.name: suite
    for suite in (
        ASYNCPG,
        PSYCOPG,
        _sqlalchemy("sqlalchemy", "postgresql+asyncpg"),
        _sqlalchemy("sqlalchemy-psycopg", "postgresql+psycopg"),
    )
}


def find_suites(names: Iterable[str]) -> list[Suite]:
    """The suites with these names; all if there are none."""
    if unknown := [name for name in names if name not in SUITES]:
        raise WorkbookError(f"There are no tests of {', '.join(unknown)}. There are those of: {', '.join(SUITES)}.")
    return [SUITES[name] for name in names] or list(SUITES.values())
