"""How lesson 18 reads what a release is made of."""

from __future__ import annotations

from pathlib import Path

import pytest

from checks.kit.testbed.runtime import Runtime
from checks.lesson_18 import locked, private, workflow
from checks.lesson_18.compose import Compose, without_init
from checks.lesson_18.compose import test_of as command_of
from checks.lesson_18.database import asks_by_tcp
from checks.lesson_18.dockerfile import Image, expanded, read_stages

CONTEXT = ["Dockerfile", "app/main.py", "app/sales/pricing.py", "deploy/start.sh", "requirements.txt"]


def image(tmp_path: Path, text: str) -> Image:
    (tmp_path / "Dockerfile").write_text(text + "\nCMD true\n")
    return read_stages(tmp_path / "Dockerfile", CONTEXT)[""]


@pytest.mark.parametrize(("copy", "files"), [
    ("COPY app ./app", {"/srv/app/main.py", "/srv/app/sales/pricing.py"}),
    ("COPY app/ ./", {"/srv/main.py", "/srv/sales/pricing.py"}),
    ("COPY requirements.txt .", {"/srv/requirements.txt"}),
    ("COPY requirements.txt /etc/packages", {"/etc/packages"}),
    ("COPY --chown=1:1 deploy/*.sh /bin/", {"/bin/start.sh"}),
    ('COPY ["deploy/start.sh", "requirements.txt", "/x/"]', {"/x/start.sh", "/x/requirements.txt"}),
    ("COPY . .", {f"/srv/{name}" for name in CONTEXT}),
    ("COPY --from=astral/uv /uv /bin/uv", set()),
])  # fmt: skip
def test_what_copy_puts_into_an_image(tmp_path: Path, copy: str, files: set[str]) -> None:
    assert set(image(tmp_path, f"FROM python:3.13\nWORKDIR /srv\n{copy}").files) == files


def test_a_stage_goes_on_with_what_another_one_has(tmp_path: Path) -> None:
    text = "ARG V=3.13\nFROM python:$V-slim AS base\nENV A=1\nUSER 7\nFROM base\nENV B=${A:-2}x C=${D:-4}"
    found = image(tmp_path, text)
    assert (found.root, found.user, found.env) == ("python:3.13-slim", "7", {"A": "1", "B": "1x", "C": "4"})


def test_files_of_another_stage(tmp_path: Path) -> None:
    text = "FROM python:3.13 AS build\nCOPY app /src/app\nFROM python:3.13-slim\nCOPY --from=build /src /srv"
    found = image(tmp_path, text)
    assert found.files["/srv/app/main.py"] == "app/main.py" and len(found.origins) == 1


def test_lines_of_a_here_document_are_steps(tmp_path: Path) -> None:
    found = image(tmp_path, "FROM python:3.13-slim\nRUN <<EOF\napt-get install -y curl\nEOF")
    assert "curl" in found.programs


@pytest.mark.parametrize(("command", "rest"), [
    (["/usr/bin/tini", "-g", "--", "uvicorn", "-x"], ["uvicorn", "-x"]),
    (["uv", "run", "--no-sync", "uvicorn"], ["uvicorn"]),
    (["sh", "-c", "tini x"], ["sh", "-c", "tini x"]),
])  # fmt: skip
def test_what_passes_signals_on_is_left_out(command: list[str], rest: list[str]) -> None:
    assert without_init(command) == rest


def test_values_of_variables() -> None:
    assert expanded("$A ${A} ${B:-c} ${A:+d} \\$A", {"A": "1"}) == "1 1 c d $A"


@pytest.mark.parametrize(("name", "exact"), [
    ("python:3.13-slim", True), ("postgres:18.1", True), ("a:5000/python:3.13", True), ("python@sha256:0", True),
    ("python", False), ("python:latest", False), ("python:3-slim", False), ("a:5.0/python", False),
    ("postgres:18-alpine3.22", False), ("python:3-alpine3.22", False), ("uv:python3.13-slim", True),
])  # fmt: skip
def test_exact_names_of_images(name: str, exact: bool) -> None:
    assert locked.is_exact(name) is exact


def test_images_from_which_files_are_copied_count(tmp_path: Path) -> None:
    text = "FROM python:3.13\nCOPY --from=a/uv:latest /uv /bin/\nRUN --mount=type=bind,from=b/c:1,target=/x true"
    assert image(tmp_path, text).others == {"a/uv:latest", "b/c:1"}


def compose(tmp_path: Path, install: str, text: str) -> list[str]:
    (tmp_path / "Dockerfile").write_text(f"FROM python:3.13-slim\nCOPY . .\nRUN {install}\nCMD true\n")
    (tmp_path / "compose.yaml").write_text("services: {web: {build: .}}")
    (tmp_path / "requirements.txt").write_text(text)
    return locked.trouble(locked.packages(Compose(tmp_path).service("web")))


def test_pins_of_a_requirements_file(tmp_path: Path) -> None:
    hashed = "anyio==4.16.0 \\\n    --hash=sha256:0\nidna==3.20  # for anyio\n"
    for install in ("pip install -r requirements.txt", "python -m pip install --requirement=requirements.txt"):
        said = compose(tmp_path, f"--mount=type=cache,target=/x {install} && true", hashed)
        assert not [one for one in said if "anyio has" in one or "idna" in one], said
    assert "anyio has no exact version." in compose(tmp_path, "pip install -r requirements.txt", "anyio>=4\nidna==3.20")
    assert "anyio brings idna along, which has no exact version." in compose(
        tmp_path, "pip install -r requirements.txt", "anyio==4.16.0"
    )


def steps(tmp_path: Path, run: str, **more: object) -> list[workflow.Step]:
    import yaml

    job = {"runs-on": "ubuntu-24.04", "services": {"db": {"image": "postgres:18"}}, "steps": [{"run": run, **more}]}
    (tmp_path / "ci.yaml").write_text(yaml.safe_dump({"on": ["pull_request"], "jobs": {"a": job}}))
    return workflow.read(tmp_path / "ci.yaml")


@pytest.mark.parametrize(("run", "ignored"), [
    ("mypy app", False), ("uv run mypy --strict app", False), ("A=1 python -m mypy app && true", False),
    ("mypy app || true", True), ("mypy app | cat", True), ("set +e\nmypy app\nls", True), ("mypy --version", True),
    ("mypy app || exit 1", False), ("set -o pipefail\nmypy app | tee log", False), ("mypy app 2>&1", False),
    ("mypy app && ls", False), ("mypy app && ls\nls", True), ("mypy app &\nls", True), ("mypy app; ls", False),
    ("if ! mypy app; then ls; fi", True), ("mypy app &&\n  ls", False),
])  # fmt: skip
def test_whether_a_step_can_fail(tmp_path: Path, run: str, ignored: bool) -> None:
    found = [step for step in steps(tmp_path, run) if workflow.runs(step, workflow.WANTED["a type checker"])]
    assert len(found) == 1 and bool(found[0].ignored) is ignored


def test_a_shell_of_its_own_may_go_on(tmp_path: Path) -> None:
    for shell, ignored in (("bash {0}", True), ("bash -e {0}", False), ("bash", False)):
        [step, _] = steps(tmp_path, "mypy app\nls", shell=shell)
        assert bool(step.ignored) is ignored, shell


@pytest.mark.parametrize(("condition", "ignored"), [
    ("always()", False), ("${{ !cancelled() }}", False), ("github.event_name == 'push'", True),
    ("github.event_name == 'pull_request' || github.ref == 'refs/heads/main'", False), ("false", True),
    ("github.event.pull_request.draft == false", True), ("github.event_name != 'schedule'", False),
])  # fmt: skip
def test_conditions_that_hold_for_each_pull_request(tmp_path: Path, condition: str, ignored: bool) -> None:
    [step] = steps(tmp_path, "mypy app", **{"if": condition})
    assert bool(step.ignored) is ignored


@pytest.mark.parametrize(("test", "by_tcp"), [
    (["CMD", "pg_isready", "-h", "127.0.0.1"], True), ("pg_isready -h db -U x || exit 1", True),
    ("PGPASSWORD=$$P psql -hlocalhost -c 'select 1'", True), ("bash -c '</dev/tcp/127.0.0.1/5432'", True),
    ("pg_isready", False), ("pg_isready -h 127.0.0.1 || pg_isready", False), ("pg_isready -h 127.0.0.1; true", False),
    ("pg_isready -h /var/run/postgresql", False), ("pg_isready -h 127.0.0.1 || exit 0", False),
])  # fmt: skip
def test_health_checks_that_ask_by_tcp(test: object, by_tcp: bool) -> None:
    assert asks_by_tcp(command_of(test), {}) is by_tcp


@pytest.mark.parametrize(("text", "found"), [
    ("postgresql+asyncpg://a:b@db/c", True), ("postgresql+asyncpg://a:$P@db/c", False), ("http://a/b:c@d", False),
    ("not a URL like postgresql+asyncpg://user:password@host:port/name", False), ("postgresql://a@db:5432/c", False),
])  # fmt: skip
def test_urls_with_a_password(text: str, found: bool) -> None:
    assert bool(private.URL.search(text)) is found


@pytest.mark.parametrize(("text", "found"), [
    ("JWT_SECRET=abc", True), ('export JWT_SECRET="$(cat x)"', False), ("PGPASSWORD=$P psql", False),
    ("POSTGRES_PASSWORD_FILE=/run/x", False), ("JWT_SECRET=/run/x", False), ("PIP_TOKEN='t'", True),
])  # fmt: skip
def test_secrets_that_a_shell_sets(text: str, found: bool) -> None:
    assert bool(private.ASSIGNED.search(text)) is found


def test_alembic_needs_tables_to_compare_with(tmp_path: Path) -> None:
    assert workflow.checked_in_order(steps(tmp_path, "alembic upgrade head\nalembic check"))
    assert not workflow.checked_in_order(steps(tmp_path, "alembic check\nalembic upgrade head"))


async def test_the_kit_reaches_what_a_process_listens_on(runtime: Runtime) -> None:
    listener = await runtime.listen()
    host, port = listener.getsockname()
    _, writer = await runtime.dial(host, port)
    connection, _ = listener.accept()
    for one in (writer, connection, listener):
        one.close()
    with pytest.raises(ConnectionRefusedError):
        await runtime.dial(host, port)
