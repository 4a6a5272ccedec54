"""An app that does not start, or whose tables cannot be made, says why and where."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from checks.kit.lessons.paths import ROOT
from checks.kit.postgres import Server
from checks.kit.service.app import AppDidNotStart
from checks.kit.testbed.schema import SchemaError, explaining, read_schema
from checks.self_test.commands import pytest_run

DUMP = """Timeout (0:00:27)!
Thread 0x00007f5a (most recent call first):
  File "/shop/app/main.py", line 3 in wait
  File "/shop/app/main.py", line 7 in <module>
  File "/python/importlib/__init__.py", line 126 in import_module
"""


@pytest.mark.parametrize(
    ("code", "log", "said"),
    [
        (3, "ValueError: no\n", "The app ended with exit code 3 before it accepted a request."),
        (0, "", "exit code 0 before it accepted a request. No exception ended it: look for sys.exit()"),
        (-9, "", "The app was ended by SIGKILL before it accepted a request. Somebody killed it, perhaps the system"),
        (-24, "", "was ended by SIGXCPU before it accepted a request. It used all of the processor time"),
        (-11, "", "was ended by SIGSEGV before it accepted a request. It crashed outside of Python"),
        (None, DUMP, "did not accept a request within 30 s. It is still busy with its imports: is there a loop"),
        (None, "INFO:     Waiting for application startup.\n" + DUMP, "Its lifespan has begun and has not come to its"),
        (
            None,
            "INFO:     Uvicorn running on http://127.0.0.1:8137 (Press CTRL+C to quit)\n" + DUMP,
            "It serves on http://127.0.0.1:8137 instead: a module calls uvicorn.run() while it is imported.",
        ),
        (
            1,
            "ERROR:    [Errno 98] error while attempting to bind on address ('127.0.0.1', 8137): in use\n",
            "It wants to serve on ('127.0.0.1', 8137) instead: a module calls uvicorn.run()",
        ),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="the numbers of the signals are Linux's")
def test_the_likely_cause_is_named(code: int | None, log: str, said: str) -> None:
    error = AppDidNotStart(code, log)
    assert said in str(error)
    assert "Thread 0x" not in error.log
    if DUMP in log:
        assert error.frames[0] == ("/shop/app/main.py", 3, "wait")


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A copy of solution 00 to break."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "solutions/lesson_00", tmp_path / "lesson_00", ignore=ignored)
    return tmp_path / "lesson_00"


def _said(target: Path) -> str:
    done = pytest_run("checks/lesson_00", "-k", "it_starts or sigterm", "--target", str(target))
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stdout
    return " ".join(done.stdout.split())


@pytest.mark.slow
def test_a_loop_without_an_end_is_found(mine: Path) -> None:
    (mine / "app/main.py").write_text("def forever():\n    while True: pass\n\n\nforever()\n")
    said = _said(mine)
    assert "It is still busy with its imports: is there a loop, or a call that waits? It printed nothing." in said
    assert "app/main.py:2 in forever this was still running" in said
    assert "The last lines that app printed" not in said


@pytest.mark.slow
def test_a_server_that_starts_at_import_is_found(mine: Path) -> None:
    main = mine / "app/main.py"
    main.write_text(main.read_text() + "\n\nimport uvicorn\nuvicorn.run(app, port=0)\n")
    said = _said(mine)
    assert "instead: a module calls uvicorn.run() while it is imported." in said
    assert f"app/main.py:{len(main.read_text().splitlines())} in <module>" in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "said"),
    [
        (
            b"CREATE TABLE a (id int);\nCREATE TABEL b (id int);\n",
            'schema.sql, line 2: syntax error at or near "TABEL"',
        ),
        (b"CREATE TABLE a (id int);\nCREATE TABLE a (id int);\n", 'schema.sql: relation "a" already exists'),
        ("-- ok\n-- caf\xe9\n".encode("latin-1"), "schema.sql, line 2: this line is not in UTF-8"),
    ],
    ids=["syntax", "twice", "latin-1"],
)
def test_a_mistake_in_the_script_of_the_tables_is_the_learners(mine: Path, script: bytes, said: str) -> None:
    (mine / "schema.sql").write_bytes(script)
    printed = _said(mine)
    assert said in printed
    assert "0 of 8 checks pass, 7 not run" in printed
    assert "Please report" not in printed


async def test_a_mistake_in_the_script_has_its_line(tmp_path: Path, server: Server) -> None:
    """Whatever follows; as PostgreSQL counts characters, not bytes."""
    script = "-- é\nCREATE TABLE a (id int);\nCREATE TABEL b (id int);\nCREATE TABLE c (id int);\n"
    said = pytest.raises(SchemaError, match=r'schema.sql, line 3: syntax error at or near "TABEL"')
    with said, explaining(tmp_path / "schema.sql", script):
        async with server.databases(script, "schema"):
            pass


def test_a_script_is_read_without_its_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "schema.sql"
    path.write_bytes(b"\xef\xbb\xbfCREATE TABLE a (id int);\n")
    assert read_schema(path) == "CREATE TABLE a (id int);\n"
    path.write_bytes("SELECT 1;\n-- caf\xe9\n".encode("latin-1"))
    with pytest.raises(SchemaError, match=r"schema.sql, line 2: this line is not in UTF-8"):
        read_schema(path)


@pytest.mark.slow
def test_a_byte_order_mark_before_the_script_changes_nothing(mine: Path) -> None:
    schema = mine / "schema.sql"
    schema.write_bytes(b"\xef\xbb\xbf" + schema.read_bytes())
    done = pytest_run("checks/lesson_00", "-k", "it_starts", "--target", str(mine))
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_a_file_of_settings_that_lies_there_is_named(mine: Path) -> None:
    (mine / ".env").write_text("DATABASE_URL=postgresql+asyncpg://me@localhost/mine\n")
    settings = mine / "app/settings.py"
    text = settings.read_text()
    field = "    database_url: Annotated"
    settings.write_text(text.replace(field, f'    model_config = {{"env_file": ".env"}}\n{field}'))
    done = pytest_run("checks/lesson_00", "-k", "without", "--target", str(mine))
    assert done.returncode == 1, done.stdout
    said = " ".join(done.stdout.split())
    assert "A file .env lies in the lesson's folder" in said
    assert ".env sets DATABASE_URL, as the check does. The app may have read it from there." in said
