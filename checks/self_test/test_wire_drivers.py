"""Drivers' own tests behave through the proxy as they do directly."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from checks.kit.authoring import driver_suites
from checks.kit.authoring.driver_outcomes import read_outcomes
from checks.kit.authoring.driver_suites import ASYNCPG, IMPORTED, PSYCOPG, SUITES, Access, find_suites, repository
from checks.kit.authoring.drivers import Comparison, compare
from checks.kit.authoring.drivers_output import compare_suites
from checks.kit.lessons.errors import WorkbookError

SELECTIONS = {
    "asyncpg": ("test_copy", "test_prepare", "test_cancellation", "test_cursor", "test_execute", "test_listeners"),
    "sqlalchemy": ("test_async_pg", "test_cancellation"),
    "sqlalchemy-psycopg": ("test_transaction",),
}
"""A minute; `workbook dev drivers` runs all."""

CONFTEST = """
import psycopg, pytest

def pytest_addoption(parser):
    parser.addoption("--test-dsn")

@pytest.fixture
def conn(request):
    with psycopg.connect(request.config.getoption("--test-dsn")) as conn:
        yield conn
"""

TESTS = """
import pytest

def test_rows(conn):
    assert conn.execute("SELECT generate_series(1, 3)").fetchall() == [(1,), (2,), (3,)]

def test_peer(conn):  # the client's port: the same for the server, unless a proxy is between
    import socket
    peer = socket.socket(fileno=__import__("os").dup(conn.fileno()))
    assert peer.family == socket.AF_UNIX

@pytest.mark.slow
def test_slow():
    raise AssertionError
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", SELECTIONS)
async def test_the_drivers_own_tests_do_the_same_through_the_proxy(name: str) -> None:
    suite = SUITES[name]
    try:
        source = suite.source()
    except WorkbookError as error:
        pytest.skip(str(error))
    found = await compare(suite, source, suite.choose(source, SELECTIONS[name]))
    assert sum(outcome == "passed" for outcome in found.proxied.values()) > 20
    assert found.differing == [], found.repeated


@pytest.mark.slow
def test_tests_from_a_repository_run_and_what_differs_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """psycopg's are not in its source distribution."""
    tests = (origin := tmp_path / "origin") / "tests"
    tests.mkdir(parents=True)
    (origin / "pyproject.toml").write_text("[tool.pytest.ini_options]\nmarkers = ['slow']\n")
    (tests / "conftest.py").write_text(CONFTEST)
    (tests / "test_both.py").write_text(TESTS)
    for command in ("init -q", "add -A", "-c user.name=x -c user.email=x@x commit -q -m x", f"tag {PSYCOPG.release}"):
        subprocess.run(["git", *command.split()], cwd=origin, check=True)
    monkeypatch.setattr(driver_suites, "repository", lambda suite: origin.as_uri())
    PSYCOPG.fetch(PSYCOPG, source := tmp_path / "source")
    (source / IMPORTED).mkdir()  # it would hold psycopg's pool
    monkeypatch.setattr(driver_suites.Suite, "add_imported", lambda suite, source: None)
    assert compare_suites(["psycopg"], [], "", source) == 1
    printed = capsys.readouterr().out
    assert "directly           2 tests: 2 passed" in printed
    assert "through the proxy  2 tests: 1 passed, 1 failed" in printed
    assert "tests/test_both.py::test_peer\n" in printed
    assert "1 test came out differently each time" in printed


def test_psycopgs_package_names_its_repository() -> None:
    assert repository(PSYCOPG).endswith("/psycopg/psycopg")


def test_outcomes_are_read_by_test(tmp_path: Path) -> None:
    lines = [
        ("test_copy.py::test_good", "passed"),
        ("test_copy.py::test_bad", "failed"),
        ("test_copy.py::test_out", "skipped"),
        ("test_copy.py::test_teardown", "passed"),
        ("test_copy.py::test_teardown", "failed"),
    ]
    (path := tmp_path / "outcomes").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_outcomes(path) == dict(lines)
    assert read_outcomes(tmp_path / "none") == {}


def test_a_test_that_depends_on_luck_does_not_differ() -> None:
    found = Comparison({}, {})
    found.repeated = {"lucky": (["passed", "failed"], ["failed", "failed"]), "other": (["passed"] * 2, ["failed"] * 2)}
    assert found.differing == ["other"]


def test_files_of_tests_are_chosen_by_name(tmp_path: Path) -> None:
    (tmp_path / "tests" / "more").mkdir(parents=True)
    for name in ("test_copy", "test_cursor", "test__sourcecode", "more/test_copy"):
        (tmp_path / "tests" / f"{name}.py").touch()
    assert ASYNCPG.choose(tmp_path, ["test_cursor"]) == ["tests/test_cursor.py"]
    assert ASYNCPG.choose(tmp_path, ["test_copy"]) == ["tests/more/test_copy.py", "tests/test_copy.py"]
    assert len(ASYNCPG.choose(tmp_path, [])) == 3
    with pytest.raises(WorkbookError, match=r"no tests named test_copied\. It has: test_copy, test_cursor"):
        ASYNCPG.choose(tmp_path, ["test_copied"])


def test_suites_are_chosen_by_name() -> None:
    assert [suite.name for suite in find_suites(["psycopg"])] == ["psycopg"]
    assert len(find_suites([])) == len(SUITES)
    with pytest.raises(WorkbookError, match=r"no tests of pg8000\. There are those of: asyncpg, psycopg, sqlalchemy"):
        find_suites(["pg8000"])
    with pytest.raises(WorkbookError, match="Name it: workbook dev drivers NAME"):
        compare_suites([], ["test_copy"], "", None)


def test_the_url_of_a_server_on_a_unix_socket() -> None:
    access = Access("/tmp/a b", 5432, "me", "p@ss", "shop")
    assert access.url("postgresql+psycopg") == "postgresql+psycopg://me:p%40ss@/shop?host=%2Ftmp%2Fa%20b&port=5432"
