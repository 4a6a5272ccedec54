"""Lesson 18: what a release is made of. Here: what the files say, read by parsers of their formats."""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from docker.utils.build import exclude_paths

from checks.kit.report import expect
from checks.lesson_18 import locked, private, workflow
from checks.lesson_18.context import patterns_of
from checks.lesson_18.database import asks_by_tcp, in_memory
from checks.lesson_18.specifications import violation

SERVICES = ("migrate", "web", "worker")
KNOWN_KEY = "b1946ac92492d2347c6235b4d2611184d8f1a3c7"
"""The key that is in the image as it is handed out."""

KNOWN_PASSWORD = "correct-horse-battery"

PRIVATE = (
    *(".env", "secrets/jwt_secret", ".git/config", ".git/objects/17/5f", ".venv/bin/python3"),
    *("__pycache__/x.pyc", "app/__pycache__/main.cpython-313.pyc", "migrations/versions/__pycache__/a.pyc"),
)
"""What is in the folder of a developer, and not in an image."""

NEEDED = ("app/main.py", "app/sales/pricing.py", "migrations/versions/0001_tables.py", "alembic.ini")
READABLE = "Everybody who can pull the image, or read the repository, can log in: as any customer, or to the database."
RACE = "Whether the release starts on a new machine depends on chance: on what is ready first."


async def test_no_secret_is_in_the_image(release):
    """Neither the context of the build nor image, Dockerfile or compose.yaml holds a secret."""
    compose = release.compose
    for name in ("db", *SERVICES):
        named = private.variables(compose.service(name))
        expect(
            not named,
            f"The service {name}, or a stage of its image, has {', '.join(named)} among its variables.",
            because=READABLE,
            section="Where a secret ends up",
        )
    places = private.written(compose, SERVICES)
    expect(
        not places,
        f"A password or a key is in {', '.join(places)}.",
        because=READABLE,
        section="Where a secret ends up",
    )
    written = [name for name in texts(release.folder) if holds_known(release.folder / name)]
    expect(
        not written,
        f"A key or password of the old release is still in {', '.join(written)}.",
        because=READABLE,
        section="Where a secret ends up",
    )
    sent = context_with_private_files(release.folder, compose)
    expect(
        not sent.private,
        f"The folder of a developer has more files than the repository. These are sent to the builder: "
        f"{', '.join(sent.private)}. Lines of .dockerignore: {', '.join(sent.patterns) or 'none'}.",
        because="COPY puts them into a layer, where they stay also if a later step deletes them.",
        section="Where a secret ends up",
    )
    missing = [name for name in NEEDED if name not in compose.service("web").image.files.values()]
    expect(
        not missing,
        f"These files of the app are not in the image: {', '.join(missing)}.",
        because="The release does not start.",
        section="Where a secret ends up",
    )


async def test_the_service_is_not_root(release):
    """`migrate`, `web` and `worker` run as a user that is a number, and not 0."""
    for name in SERVICES:
        user = release.compose.service(name).user
        uid = user.partition(":")[0]
        expect(
            uid.isdecimal() and int(uid) > 0,
            f"The service {name} runs as {user or 'root, because no USER is set'}.",
            because="An attacker who breaks into a service of root is root in its container. A platform that refuses "
            "root cannot tell from a name which user it is, and does not start the service.",
            section="The user that runs a service",
        )


async def test_versions_are_exact(release):
    """The image has the exact version of each package that it needs, none for development only, and no `latest`."""
    for name in ("db", *SERVICES):
        service = release.compose.service(name)
        for base in locked.bases(service):
            expect(
                locked.is_exact(base),
                f"The service {name} is made from {base}, which is another image next month.",
                because="A release that was built twice is two releases, and nobody can tell what has changed.",
                section="Which versions are in the image",
            )
    images = {str(release.compose.service(name).build): name for name in SERVICES}
    for name in images.values():
        trouble = locked.trouble(locked.packages(release.compose.service(name)))
        expect(
            not trouble,
            f"In the image of {name}: {trouble[0] if trouble else ''} (Problems in all: {len(trouble)}.)",
            because="What runs is not what was tested: a package is newer, is missing, or is a tool of development.",
            section="Which versions are in the image",
        )


async def test_services_start_in_order(release):
    """compose.yaml follows its specification; `migrate` waits until `db` accepts TCP, the others until it has ended."""
    wrong = violation("compose-spec", release.compose.data)
    expect(
        not wrong,
        f"compose.yaml does not follow its specification: {wrong}.",
        because="`docker compose up` refuses the file, so nothing starts.",
        section="The order of the start",
    )
    services = {name: release.compose.service(name) for name in ("db", *SERVICES)}
    for name, service in services.items():
        profiles = ", ".join(map(str, service.data.get("profiles") or []))
        expect(
            not profiles,
            f"The service {name} has the profile {profiles}, so `docker compose up` does not start it.",
            because="What waits for it never starts.",
            section="The order of the start",
        )
    wanted = {("migrate", "db"): "service_healthy", **{
        (name, "migrate"): "service_completed_successfully" for name in ("web", "worker")
    }}  # fmt: skip
    for (name, other), condition in wanted.items():
        got = services[name].needs.get(other, "nothing")
        expect(
            got == condition,
            f"The service {name} waits for this of {other}: {got}. Expected: {EXPECTED[condition]}.",
            because=RACE,
            section="The order of the start",
        )
    health = services["db"].health
    expect(
        asks_by_tcp(health, services["db"].own_environment),
        f"The health check of `db` is `{' '.join(health) or 'none'}`, which does not wait until `db` listens on TCP.",
        because="While PostgreSQL makes the database, it listens on a Unix socket only. Then it ends and starts again. "
        "On a new volume `migrate` starts in between, and fails.",
        section="The order of the start",
    )
    again = services["migrate"].restart
    expect(
        again == "no" or again.startswith("on-failure"),
        f"`migrate` has the restart policy {again}, so it is started again when it is done.",
        because="The services that wait for its end never start.",
        section="The order of the start",
    )


async def test_the_database_keeps_its_rows(release):
    """A volume with a name holds the folder in which the image of `db` keeps its rows."""
    service = release.compose.service("db")
    volumes = [locked.volume(entry) for entry in service.data.get("volumes") or []]
    folder = locked.data_folder(service)
    named = set(release.compose.data.get("volumes") or {})
    lost = in_memory(release.compose.data)
    kept = [goal for source, goal in volumes if source in named - lost and locked.holds(goal, folder)]
    expect(
        bool(kept),
        f"{service.data.get('image')} keeps its rows in {folder}. "
        f"Volumes: {', '.join(f'{source}:{goal}' for source, goal in volumes) or 'none'}."
        f"{' In memory: ' + ', '.join(lost) + '.' if lost else ''} Expected: a named volume that holds this folder.",
        because="The rows are not in that volume, or it keeps nothing. They are gone when the container is made again.",
        section="The order of the start",
    )


async def test_ci_would_notice(release):
    """For each pull request, deploy/ci.yaml runs linter, type checker, `alembic upgrade head` and `alembic check`."""
    jobs = workflow.read(release.folder / "deploy" / "ci.yaml")
    for tool, command in workflow.WANTED.items():
        found = [step for step in jobs if workflow.runs(step, command)]
        strict = [step for step in found if not step.ignored]
        expect(
            bool(strict),
            f"No step runs {tool}." if not found else f"The step with {tool} lets mistakes pass: {found[0].ignored}.",
            because="The mistake is found only by the deploy.",
            section="What CI has to notice",
        )
    expect(
        workflow.checked_in_order(jobs),
        "`alembic check` does not run after `alembic upgrade head` in one job with a PostgreSQL.",
        because="It compares the models with a database that has no tables.",
        section="What CI has to notice",
    )


EXPECTED = {
    "service_healthy": "its health check",
    "service_completed_successfully": "its end with exit code 0",
}


def texts(folder):
    """The files of the release, without the ticket and what tools have put there."""
    names = (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file())
    return [name for name in names if name not in ("README.md", "lesson.toml") and "__pycache__" not in name]


def holds_known(path):
    content = path.read_bytes()
    return KNOWN_KEY.encode() in content or KNOWN_PASSWORD.encode() in content


@dataclass(frozen=True)
class Sent:
    """What of a developer's private files is sent to the builder, and the lines that should keep it."""

    private: list[str]
    patterns: list[str]


def context_with_private_files(folder, compose):
    build = compose.service("web").build
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "checkout"
        shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("__pycache__", ".git", ".venv"))
        for name in PRIVATE:
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_text("private", encoding="utf-8")
        context = copy / str(build.get("context", "."))
        dockerfile = context / str(build.get("dockerfile", "Dockerfile"))
        patterns = patterns_of(context, dockerfile)
        names = exclude_paths(str(context), [*patterns], dockerfile=dockerfile.name)
        sent = {(context / name).resolve() for name in names}
        return Sent([name for name in PRIVATE if (copy / name).resolve() in sent], patterns)
