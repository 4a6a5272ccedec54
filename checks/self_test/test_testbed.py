"""A lesson with an outside service and a worker, in a checkout of its own: the example of the authors' guide."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from checks.kit.lessons.paths import ROOT
from checks.kit.report.html import html
from checks.kit.report.model import Report
from checks.kit.service import sandbox
from checks.kit.service.sandbox import SandboxSpec

FIXTURES = '''
"""The fixtures of this lesson."""

from checks.kit.testbed.fixtures import fixture
from checks.kit.testbed.outside_service import Answer, outside_service


@fixture
async def provider(testbed):
    """The payment provider, which processes find at PAYMENT_URL."""
    title, usual = "At the payment provider", Answer(201, {"id": "p1"})
    async with outside_service(testbed, env="PAYMENT_URL", title=title, answer=usual) as provider:
        yield provider


@fixture(last=True)
async def worker(testbed):
    """`python -m app.worker`, just started."""
    yield await testbed.start("app.worker", connected=True)
'''
CHECKS = '''
"""Checks of a lesson with a payment provider and a worker."""

import asyncio

from checks.kit.report import expect


async def test_the_app_pays(app, provider):
    """`POST /pay` asks the payment provider once."""
    response = await app.post("/pay/7")
    expect(response["status"] == 201, f"{response}", because="x")
    [call] = provider.calls
    expect((call.method, call.path, call.json) == ("POST", "/payments/7", {"cents": 5}), f"{call}", because="x")


async def test_the_app_pays_without_a_fixture(app, testbed):
    """The provider of lesson.toml returns 201."""
    expect([(await app.post(f"/pay/{n}"))["status"] for n in (1, 2)] == [201, 201], "It paid nobody.", because="x")
    expect([call.answer.json["id"] for call in testbed.services["PAYMENT_URL"].calls] == ["p1", "p2"], "x", because="x")


async def test_a_fixture_takes_the_place_of_the_one_of_the_manifest(app, provider, testbed):
    """The provider of the fixture is asked."""
    await app.post("/pay/7")
    expect((len(provider.calls), testbed.services) == (1, {}), "Somebody else was asked.", because="x")


async def test_a_refusal_is_passed_on(app, provider):
    """`POST /pay` returns 402 after the provider refused."""
    provider.respond(status=402)
    response = await app.post("/pay/8")
    expect(response.status == 402, f"{response}", because="Goods leave the shop unpaid.")


async def test_the_database_can_be_away(app, wire):
    """`GET /connect` returns the error with which a connection to the database is refused."""
    errors = []
    for _ in range(2):
        errors.append((await app.get("/connect"))["error"])
        async with wire.refusing("nothing_listens"):
            errors.append((await app.get("/connect"))["error"])
    errors.append((await app.get("/connect"))["error"])
    expect(errors == ["", "ECONNREFUSED"] * 2 + [""], f"{errors}", because="x")


async def test_a_payment_may_hang_break_and_come_late(app, provider):
    """`POST /pay` gives up on a provider that does not respond."""
    async with provider.hold() as held:
        request = app.start_request("POST", "/pay/1")
        await held.arrived()
        expect(not request.responded, "It did not wait.", because="x")
        held.release()
        expect((await request).status == 200, "It got no response.", because="x")
    provider.break_next()
    expect((await app.post("/pay/2"))["error"] == "RemoteProtocolError", "It did not break.", because="x")
    async with provider.hold() as held:
        request = app.start_request("POST", "/pay/3?timeout=0.2")
        await held.client_left()
        expect((await request)["error"] == "ReadTimeout", "It did not give up.", because="x")
    await provider.received(3)


async def test_a_call_that_never_comes_is_told(provider):
    """A payment arrives."""
    async with asyncio.timeout(55):
        await provider.received(1)


async def test_the_worker_pays_what_is_open(app, worker, provider):
    """The worker asks for payment 1."""
    await app.post("/fail")
    expect(False, f"pid {worker.pid}, {len(provider.calls)} requests", because="x")


async def test_workers_are_told_apart_and_end_as_they_are_asked(testbed, app, wire):
    """Each of two workers is another process on the wire."""
    await app.post("/select")
    workers = [await testbed.start("app.worker", connected=True) for _ in range(2)]
    async with asyncio.timeout(30):
        while len({statement.process for statement in testbed.seen.data_statements}) < 3:
            await asyncio.sleep(0.01)
    by = {statement.process: statement.text for statement in testbed.seen.data_statements}
    expect(by == {"app": "SELECT 'app'", "app.worker": "SELECT 'worker'", "app.worker (2)": "SELECT 'worker'"}, f"{by}",
           because="x")
    connected = sorted({connection.process for connection in wire.connections})
    expect(connected == ["app.worker", "app.worker (2)"], f"{connected}", because="x")
    codes = [await workers[0].terminate(), await workers[1].kill()]
    await wire.all_closed()
    expect(codes == [7, -9], f"{codes}", because="x")
    closed = [connection.process for connection in wire.closed]
    expect(closed == ["app", "app.worker", "app.worker (2)"], f"{closed}", because="x")
    expect(False, "All is well.", because="x")


async def test_an_outage_is_one_for_every_process(testbed, app, wire):
    """The worker finds no database where the app finds none."""
    async with wire.refusing("nothing_listens"):
        worker = await testbed.start("app.worker")
        await worker.exit
        log = worker.log
    expect("ConnectionRefusedError" in log, log, because="x")
    worker = await testbed.start("app.worker", connected=True)
    async with wire.refusing("nothing_listens"):
        await worker.kill()
        expect((await app.get("/connect"))["error"] == "ECONNREFUSED", "x", because="x")
    again = await testbed.start("app.worker", connected=True)
    expect(await again.terminate() == 7, again.log, because="x")


async def test_a_worker_that_does_not_start_says_why(testbed):
    """A worker without settings says why."""
    await testbed.start("app.worker", env={"LEAVE": "1"}, connected=True)


async def test_a_worker_that_fails_is_named_whatever_the_check_finds(testbed, app):
    """A worker with a fault ends by itself."""
    worker = await testbed.start("app.worker", env={"LEAVE": "1"}, name="the worker")
    await worker.exit
    expect(False, "No payment arrived.", because="x")


async def test_a_worker_has_the_limits_of_an_app(testbed):
    """A worker gets 2 GB at most."""
    worker = await testbed.start("app.worker", env={"HOARD": "1"})
    await worker.exit
    expect("MemoryError" in worker.log, worker.log, because="x")


async def test_a_command_tells_what_is_for_whom(testbed):
    """Standard output and standard error are told apart."""
    source = "import os, sys; print(sys.argv[1], os.environ['NAME']); print('a warning', file=sys.stderr)"
    done = await testbed.command("-c", source, "yes", env={"NAME": "here"}, apart=True)
    expect((done.stdout, done.output) == ("yes here\\n", "a warning\\n"), f"{done} {done.stdout}", because="x")
    done = await testbed.command("-c", source, "yes", env={"NAME": "here"})
    expect((done.stdout, done.output) == ("", "yes here\\na warning\\n"), f"{done} {done.output}", because="x")


async def test_two_apps_share_the_work(apps, wire):
    """Requests at once are spread over two processes."""
    with wire.watching() as seen:
        responses = await apps.at_once([("POST", "/select")] * 6)
    expect([response["pid"] for response in responses[:2]] * 3 == [response["pid"] for response in responses],
           f"{responses}", because="x")
    spread = sorted(statement.process for statement in seen.data_statements)
    expect(spread == ["app"] * 3 + ["app (2)"] * 3, f"{spread}", because="x")
    expect(len(apps) == 2 and apps[0].process.name == "app", "x", because="x")


async def test_an_app_that_does_not_start_shows_the_worker_too(worker, launch):
    """An app without settings says why."""
    await launch(env={"LEAVE": "1"})
'''
OUTSIDE = """
[[outside]]
env = "PAYMENT_URL"
name = "payment provider"
status = 201
body = '{"id": "p{n}"}'
"""
APP = """
import errno
import os
import socket
from urllib.parse import urlsplit
import asyncpg
import httpx
from fastapi import FastAPI, HTTPException

if "LEAVE" in os.environ:
    raise SystemExit("I am leaving")
app = FastAPI()
url = os.environ.get("PAYMENT_URL", "no provider")

@app.post("/pay/{number}")
async def pay(number: int, timeout: float = 30):
    async with httpx.AsyncClient(trust_env=False, timeout=httpx.Timeout(30, read=timeout)) as client:
        try:
            return {"status": (await client.post(f"{url}/payments/{number}", json={"cents": 5})).status_code}
        except httpx.TransportError as error:
            return {"error": type(error).__name__}

@app.post("/payments")
async def payments(body: dict):
    async with httpx.AsyncClient(trust_env=False) as client:
        paid = await client.post(f"{url}/payments", json=body)
    if paid.status_code != 201:
        raise HTTPException(502, "not paid")
    return body

@app.post("/select")
async def select():
    connection = await asyncpg.connect(os.environ["DATABASE_URL"].replace("+asyncpg", ""))
    await connection.fetch("SELECT 'app'")
    await connection.close()
    return {"pid": os.getpid()}

@app.get("/connect")
def connect():
    place = urlsplit(os.environ["DATABASE_URL"])
    try:
        socket.create_connection((place.hostname, place.port)).close()
    except OSError as error:
        return {"error": errno.errorcode[error.errno]}
    return {"error": ""}

@app.post("/fail")
async def fail():
    print("the app says hello")
    raise RuntimeError("on purpose")
"""
WORKER = """
import asyncio, os, signal, sys
import asyncpg

if "LEAVE" in os.environ:
    raise LookupError("no settings")
if "HOARD" in os.environ:
    bytearray(3 << 30)

async def main():
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    print("worker started,", "PAYMENT_URL" in os.environ, "DATABASE_URL" in os.environ, flush=True)
    connection = await asyncpg.connect(os.environ["DATABASE_URL"].replace("+asyncpg", ""))
    await connection.fetch("SELECT 'worker'")
    await stopped.wait()
    await connection.close()
    sys.exit(7)

asyncio.run(main())
"""


Graded = tuple[str, dict[str, dict[str, Any]]]
"""What pytest printed, and the results by the names of the checks."""


class Bench:
    """A checkout with that lesson in place of lesson 00, and a folder with an app."""

    def __init__(self, checkout: Path) -> None:
        self.checkout = checkout
        self.checks = checkout / "checks" / "lesson_00"
        (self.checks / "test_start_and_stop.py").unlink()
        (self.checks / "test_pay.py").write_text(CHECKS, encoding="utf-8")
        (self.checks / "fixtures.py").write_text(FIXTURES, encoding="utf-8")
        self.target = checkout.parent / "work" / "app"
        self.target.mkdir(parents=True)
        (self.target / "main.py").write_text(APP, encoding="utf-8")
        (self.target / "worker.py").write_text(WORKER, encoding="utf-8")
        with (checkout / "lessons" / "lesson_00" / "lesson.toml").open("a", encoding="utf-8") as manifest:
            manifest.write(OUTSIDE)

    def grade(self, *arguments: str, **environ: str) -> Graded:
        """Grades the app, with `environ` added to the grader's environment."""
        report = self.checkout / "report.json"
        report.unlink(missing_ok=True)
        target = ["--target", str(self.target.parent), "--report-json", str(report)]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "checks/lesson_00", "-p", "no:cacheprovider", *target, *arguments],
            cwd=self.checkout,
            capture_output=True,
            text=True,
            timeout=170,
            # a rewritten file of the same size and second would be taken from the bytecode of its predecessor
            env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"} | environ,
        )
        self.reports = json.loads(report.read_text(encoding="utf-8")) if report.exists() else []
        results = {result["name"]: result for read in self.reports for result in read["results"]}
        return done.stdout + done.stderr, results


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, copied: Callable[[Path], Path]) -> Bench:
    return Bench(copied(tmp_path_factory.mktemp("checkout") / "bookshop"))


@pytest.fixture(scope="module")
def graded(bench: Bench) -> Graded:
    return bench.grade("-v")


def sections(result: dict[str, Any]) -> dict[str, list[str]]:
    """The evidence: lines by title."""
    return {
        section["title"]: [" ".join(filter(None, line.values())) for line in section["lines"]]
        for section in result["evidence"]
    }


def test_a_fixture_of_the_lesson_is_in_the_environment_before_the_app_starts(
    graded: Graded,
) -> None:
    passed = graded[1]["test_the_app_pays"]
    assert passed["outcome"] == "passed", graded[0]
    assert passed["evidence"] == []


@pytest.mark.parametrize(
    "name",
    [
        "test_the_app_pays_without_a_fixture",
        "test_a_fixture_takes_the_place_of_the_one_of_the_manifest",
        "test_a_payment_may_hang_break_and_come_late",
        "test_an_outage_is_one_for_every_process",
        "test_a_worker_has_the_limits_of_an_app",
        "test_a_command_tells_what_is_for_whom",
        "test_two_apps_share_the_work",
    ],
)
def test_what_checks_do_with_services_and_processes(graded: Graded, name: str) -> None:
    assert graded[1][name]["outcome"] == "passed", graded[0]


def test_a_call_that_never_comes_is_a_failure_with_its_reason(graded: Graded) -> None:
    result = graded[1]["test_a_call_that_never_comes_is_told"]
    assert result["outcome"] == "failed"
    assert result["finding"]["happened"] == "0 of 1 call arrived at the payment provider within 10 s."


def test_processes_are_told_apart_on_the_wire_and_in_the_steps(graded: Graded) -> None:
    result = graded[1]["test_workers_are_told_apart_and_end_as_they_are_asked"]
    assert result["finding"]["happened"] == "All is well."
    assert sections(result)["On the wire"] == [
        "SELECT 'app' app #1 1 row",
        "SELECT 'worker' app.worker #2 1 row",
        "SELECT 'worker' app.worker (2) #3 1 row",
    ]
    assert "The last lines that app.worker (2) printed" in sections(result)
    steps = result["steps"]
    assert steps[1:4] == ["app.worker started", "app.worker (2) started", "SIGTERM sent to app.worker"]
    assert steps[4].startswith("app.worker ended ") and steps[4].endswith(" after SIGTERM, with exit code 7")
    assert steps[5] == "SIGKILL sent to app.worker (2)"


def test_a_worker_that_does_not_start_is_told_like_an_app(graded: Graded) -> None:
    result = graded[1]["test_a_worker_that_does_not_start_says_why"]
    assert result["finding"]["happened"] == ("app.worker ended with exit code 1 before it connected to the database.")
    [place] = result["places"]
    assert (place["path"].endswith("work/app/worker.py"), place["error"]) == (True, "LookupError: no settings")
    assert not result["blocks_lesson"], "the app may well start"
    result = graded[1]["test_a_worker_that_fails_is_named_whatever_the_check_finds"]
    assert result["finding"]["happened"] == "No payment arrived. the worker ended with exit code 1 by itself."
    assert result["places"][0]["error"] == "LookupError: no settings"


def test_evidence_of_the_lesson_is_in_every_rendering(bench: Bench, graded: Graded) -> None:
    printed, results = graded
    refused = results["test_a_refusal_is_passed_on"]
    assert sections(refused)["At the payment provider"] == ['POST /payments/8 {"cents":5} #1 402']
    row = next(line for line in printed.splitlines() if "POST /payments/8" in line)
    assert row.split() == ["#1", "POST", "/payments/8", '{"cents":5}', "→", "402"]
    assert len(row) <= 80
    assert printed.index("At the payment provider") < printed.index("POST /payments/8")
    page = html(Report.from_dict(bench.reports[0]))
    assert "<h5>At the payment provider</h5><pre>" in page
    assert "POST /payments/8 {" in page and "→ 402</pre>" in page


def test_each_process_has_its_log_in_the_verdict_and_is_killed(graded: Graded) -> None:
    printed, results = graded
    result = results["test_the_worker_pays_what_is_open"]
    assert sections(result)["The last lines that app.worker printed"] == ["worker started, True True"]
    assert "The last lines that app printed" not in sections(result), "the place says more"
    [place] = result["places"]
    assert (place["path"].endswith("work/app/main.py"), place["error"]) == (True, "RuntimeError: on purpose")
    assert result["steps"][0] == "app.worker started"
    assert "The last lines that app.worker printed\n     worker started, True True" in printed
    pid = int(result["finding"]["happened"].split()[1].rstrip(","))
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_an_app_that_does_not_start_has_its_log_beside_the_others(
    graded: Graded,
) -> None:
    result = graded[1]["test_an_app_that_does_not_start_shows_the_worker_too"]
    assert result["blocks_lesson"]
    logs = {title: lines for title, lines in sections(result).items() if title != "On the wire"}
    assert logs == {
        "The last lines that app.worker printed": ["worker started, True True"],
        "The last lines that app printed": ["I am leaving"],
    }


def test_a_service_and_a_worker_can_be_reached_in_a_sandbox(bench: Bench) -> None:
    way, why = sandbox.detect()
    if not way:
        pytest.skip(why)
    spec = SandboxSpec(str(bench.target.parent), way)
    names = [
        "test_the_app_pays",
        "test_the_app_pays_without_a_fixture",
        "test_a_payment_may_hang_break_and_come_late",
        "test_the_database_can_be_away",
        "test_an_outage_is_one_for_every_process",
        "test_a_worker_has_the_limits_of_an_app",
        "test_a_command_tells_what_is_for_whom",
        "test_two_apps_share_the_work",
    ]
    told_apart, pays = "test_workers_are_told_apart_and_end_as_they_are_asked", "test_the_worker_pays_what_is_open"
    printed, results = bench.grade("-k", " or ".join([*names, told_apart, pays]), **spec.to_environ())
    assert {name: results[name]["outcome"] for name in names} == dict.fromkeys(names, "passed"), printed
    assert results[told_apart]["finding"]["happened"] == "All is well.", printed
    told = sections(results["test_the_worker_pays_what_is_open"])
    assert told["The last lines that app.worker printed"] == ["worker started, True True"]


def test_the_example_of_the_authors_guide_is_what_it_says(bench: Bench) -> None:
    guide = (ROOT / ".github" / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = guide[guide.index("\n## 7. ") : guide.index("\n## 8. ")]
    fixtures, checks = re.findall(r"```python\n# checks/lesson_\d+/\w+\.py\n(.*?)```", section, re.DOTALL)
    path, test = bench.checks / "fixtures.py", bench.checks / "test_guide.py"
    path.write_text(FIXTURES + fixtures)  # other checks ask for the others
    test.write_text(checks)
    main = bench.target / "main.py"
    names = re.findall(r"async def (test_\w+)", checks)
    try:
        printed, results = bench.grade("-k", " or ".join(names))
        main.write_text(APP.replace("if paid.status_code != 201", "if False"), encoding="utf-8")
        _, refused = bench.grade("-k", names[0])
    finally:
        path.write_text(FIXTURES)
        main.write_text(APP, encoding="utf-8")
        test.unlink()
    assert [results[name]["outcome"] for name in names] == ["passed", "passed"], printed
    assert refused[names[0]]["finding"]["happened"].startswith("The provider returned status 402. POST /payments → 200")
    assert sections(refused[names[0]])["What the payment provider received"] == [
        'POST /payments {"order_id":1,"cents":1000} #1 402'
    ]


TEARDOWN = """
from checks.kit.report import expect


@fixture
async def strict(testbed):
    yield
    expect(False, "The provider was asked twice.", because="A customer pays twice.")


@fixture
async def broken(testbed):
    yield
    raise KeyError("socket")
"""
AFTERWARDS = '''

async def test_strict(strict):
    """A teardown may judge."""


async def test_broken(broken):
    """A teardown may break."""


async def test_both(broken):
    """What the check finds counts more than a broken teardown."""
    expect(False, "It failed.", because="x")
'''


def test_what_a_teardown_raises_is_the_error_of_a_check_that_passed(bench: Bench) -> None:
    path, checks = bench.checks / "fixtures.py", bench.checks / "test_teardown.py"
    path.write_text(FIXTURES + TEARDOWN)
    checks.write_text(f"from checks.kit.report import expect\n{AFTERWARDS}")
    try:
        printed, results = bench.grade("-k", "test_strict or test_broken or test_both")
    finally:
        path.write_text(FIXTURES)
        checks.unlink()
    said = {name: (result["outcome"], result["finding"]["happened"]) for name, result in results.items()}
    assert said == {
        "test_strict": ("failed", "The provider was asked twice."),
        "test_broken": ("error", "The check ended with an error of its own: KeyError: 'socket'"),
        "test_both": ("failed", "It failed."),
    }, printed


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def provider(:\n", "checks/lesson_00/fixtures.py cannot be imported: SyntaxError"),
        (FIXTURES.replace("def worker", "def shop"), "defines 'shop', which is a fixture of the kit"),
        (FIXTURES.replace("def worker", "def wrkr"), "asks for 'worker'. A check may ask for: large, launch, wire"),
        (FIXTURES.replace("worker(testbed)", "worker(worker)"), "in a circle: worker → worker"),
    ],
    ids=["syntax", "name of the kit", "unknown", "cycle"],
)
def test_a_lessons_fixtures_that_are_wrong_are_refused_when_checks_are_collected(
    bench: Bench, source: str, said: str
) -> None:
    path = bench.checks / "fixtures.py"
    path.write_text(source, encoding="utf-8")
    try:
        printed, results = bench.grade()
    finally:
        path.write_text(FIXTURES, encoding="utf-8")
    assert said in printed
    assert "Traceback" not in printed
    assert not results
