"""Which packages and base images a release is made of, and whether their versions are exact."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from checks.lesson_18.compose import Service
from checks.lesson_18.dockerfile import Image, words_of

TWO_NUMBERS = re.compile(r"\D*\d+\.\d+")
"""The first number of a tag is the version: `18-alpine3.22` is any 18."""

ENDS = {"&&", "||", ";", "|", "&", "\n", "(", ")"}
INSTALLERS = {"pip", "uv", "setuptools", "wheel", "poetry", "pdm", "hatch", "build"}
"""Packages that install others; they are not part of what the service runs on."""

TAKE_A_VALUE = ("-i", "--index-url", "--extra-index-url", "--target", "--prefix", "-t", "--python", "--find-links")
"""Options of pip and uv that say where, and not what."""

FOR_DEVELOPMENT = {
    *("pytest", "pytest-asyncio", "pytest-cov", "coverage", "mypy", "pyright", "ruff", "black", "flake8", "isort"),
    *("pylint", "pre-commit", "tox", "nox", "ipython", "ipdb", "debugpy", "jupyterlab", "hypothesis", "schemathesis"),
}
NEEDED = (
    *("alembic", "asgi-correlation-id", "fastapi", "httpx", "opentelemetry-exporter-otlp-proto-http"),
    *("opentelemetry-instrumentation-fastapi", "opentelemetry-instrumentation-sqlalchemy", "opentelemetry-sdk"),
    *("prometheus-client", "pydantic", "pydantic-settings", "pwdlib", "argon2-cffi", "pyjwt", "sqlalchemy"),
    *("greenlet", "structlog"),
)
"""What the app of lesson 17 imports, without its driver and its server."""

ONE_OF = (("asyncpg", "psycopg"), ("uvicorn", "gunicorn", "hypercorn", "granian"))

LINUX = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "platform_machine": "x86_64"}
PYTHONS = ({"python_version": "3.11", "python_full_version": "3.11.9"},
           {"python_version": "3.13", "python_full_version": "3.13.1"})  # fmt: skip


@dataclass
class Packages:
    """What the steps of an image install: each package with what is asked for, and what is wrong with the files."""

    wanted: dict[str, list[Requirement]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    """Those of constraints, and of lock files."""
    problems: list[str] = field(default_factory=list)

    def add(self, requirement: Requirement) -> None:
        self.wanted.setdefault(canonicalize_name(requirement.name), []).append(requirement)


def bases(service: Service) -> list[str]:
    """The images that somebody else has built and that this service is made from."""
    if not service.build:
        return [str(service.data.get("image", "nothing"))]
    images = [service.image, *service.image.origins]
    return list(dict.fromkeys([one.root for one in images] + sorted(name for one in images for name in one.others)))


def is_exact(image: str) -> bool:
    """Whether a name of an image says its version: a digest, or a tag in which that has two numbers."""
    if image == "scratch" or "@sha256:" in image:
        return True
    tag = image.rpartition("/")[2].partition(":")[2]
    return bool(TWO_NUMBERS.match(tag))


def packages(service: Service) -> Packages:
    """What pip, uv or poetry install into the image of a service."""
    found = Packages()
    folder = service.compose.folder / str(service.build.get("context", "."))
    for image in (service.image, *service.image.origins):
        for step in image.steps:
            for command in commands(words_of(step)):
                _install(command, folder, image, found)
    return found


def commands(words: Iterable[str]) -> Iterator[list[str]]:
    """The commands of a text of the shell, each with its words."""
    command: list[str] = []
    for word in [*words, ";"]:
        if word not in ENDS:
            command.append(word)
        elif command:
            yield command
            command = []


def _install(command: list[str], folder: Path, image: Image, found: Packages) -> None:
    words = [word for word in command if not word.startswith("--mount")]
    names = [word.rpartition("/")[2] for word in words]
    if "pip" in names or "pip3" in names:
        if "install" in names or "sync" in names:
            _pip(words[max(names.index(one) for one in ("install", "sync") if one in names) + 1 :], folder, found)
    elif names[:2] == ["uv", "sync"]:
        _lock(folder / "uv.lock", "package", found)
        if not {"--frozen", "--locked"} & {*words} and not {"UV_FROZEN", "UV_LOCKED"} & {*image.env}:
            found.problems.append("`uv sync` without --locked or --frozen writes a new lock file in the build.")
        if not {"--no-dev", "--no-default-groups"} & {*words} and "UV_NO_DEV" not in image.env:
            found.problems.append("`uv sync` without --no-dev installs what only development needs.")
    elif names[:2] == ["poetry", "install"]:
        _lock(folder / "poetry.lock", "package", found)
        if not any(word.startswith(("--only", "--without")) for word in words):
            found.problems.append("`poetry install` without --only main installs what only development needs.")


def _pip(words: list[str], folder: Path, found: Packages) -> None:
    rest = iter(words)
    for word in rest:
        option, _, value = word.partition("=") if word.startswith("--") else (word, "", "")
        if option in ("-r", "--requirement", "--requirements", "-c", "--constraint", "--constraints"):
            _file(folder / (value or next(rest, "")), found, constrains="-c" in option)
        elif option in TAKE_A_VALUE:
            if not value:
                next(rest, "")
        elif word.endswith((".txt", ".toml")):  # uv pip sync FILE
            _file(folder / word, found, constrains=False)
        elif word.startswith((".", "/")):
            found.problems.append(f"`pip install {word}` takes what pyproject.toml allows, which is not exact.")
        elif not word.startswith("-"):
            _line(word, found, constrains=False)


def _file(path: Path, found: Packages, *, constrains: bool) -> None:
    if path.name.startswith("pylock"):
        _lock(path, "packages", found)
        return
    if not path.is_file():
        found.problems.append(f"{path.name} does not exist.")
        return
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    for line in text.splitlines():
        line = re.split(r"(?:^|\s)#", line)[0].strip()
        option, _, rest = line.replace("=", " ", 1).partition(" ") if line.startswith("-") else ("", "", "")
        if option in ("-r", "--requirement", "-c", "--constraint"):
            _file(path.parent / rest.strip(), found, constrains="-c" in option)
        elif line and not line.startswith("-"):
            _line(line.split(" --")[0], found, constrains=constrains)


def _line(text: str, found: Packages, *, constrains: bool) -> None:
    try:
        requirement = Requirement(text.strip())
    except InvalidRequirement:
        found.problems.append(f"`{text.strip()}` is no requirement.")
        return
    if requirement.marker is not None and not _applies(requirement):
        return
    if not constrains:
        found.add(requirement)
    elif version := _pinned(requirement):
        found.versions[canonicalize_name(requirement.name)] = version


def _lock(path: Path, key: str, found: Packages) -> None:
    try:
        data: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found.problems.append(f"{path.name} does not exist, or cannot be read.")
        return
    for entry in data.get(key, []):
        name = canonicalize_name(str(entry["name"]))
        if version := entry.get("version"):
            found.versions[name] = str(version)
            if "virtual" not in (entry.get("source") or {}) and "editable" not in (entry.get("source") or {}):
                found.add(Requirement(f"{name}=={version}"))


def trouble(found: Packages) -> list[str]:
    """What keeps the packages from being exact and complete; a sentence for each."""
    said = list(found.problems)
    if not found.wanted:
        return [*said, "No RUN of the Dockerfile installs packages from a file of the repository."]
    pinned = {*found.versions, *(name for name, all_of in found.wanted.items() if any(map(_pinned, all_of)))}
    said += [f"{name} has no exact version." for name in found.wanted if name not in pinned | INSTALLERS]
    said += [f"{name} is in the image, and only development needs it." for name in FOR_DEVELOPMENT & {*found.wanted}]
    present = _with_what_they_bring(found)
    said += [f"{name} is not in the image, and the app imports it." for name in NEEDED if name not in present]
    said += [f"None of {', '.join(names)} is in the image." for names in ONE_OF if not {*names} & present]
    for name, all_of in found.wanted.items():
        extras = {extra for one in all_of for extra in one.extras}
        for other in _needs(name, extras):
            if other not in pinned:
                said.append(f"{name} brings {other} along, which has no exact version.")
    return list(dict.fromkeys(said))


def _with_what_they_bring(found: Packages) -> set[str]:
    """The packages that are named, and those that they bring along."""
    present = {*found.wanted}
    left = [(name, {extra for one in all_of for extra in one.extras}) for name, all_of in found.wanted.items()]
    while left:
        new = {other for other in _needs(*left.pop()) if other not in present}
        present |= new
        left += [(other, set()) for other in new]
    return present


def _needs(name: str, extras: set[str]) -> Iterator[str]:
    """What a package brings along, as far as it is installed here."""
    for requirement in _requires(name):
        if any(_applies(requirement, extra) for extra in extras or {""}):
            yield canonicalize_name(requirement.name)


@cache
def _requires(name: str) -> tuple[Requirement, ...]:
    """What an installed package says that it needs; nothing if it is not installed."""
    try:
        return tuple(map(Requirement, metadata.distribution(name).requires or []))
    except metadata.PackageNotFoundError:
        return ()


def _applies(requirement: Requirement, extra: str = "") -> bool:
    """Whether a requirement holds on Linux, with each Python that an image may have."""
    marker = requirement.marker
    return marker is None or all(marker.evaluate({**LINUX, **python, "extra": extra}) for python in PYTHONS)


def _pinned(requirement: Requirement) -> str:
    """The one version that a requirement allows; empty if there are more."""
    if requirement.url:
        return requirement.url
    exact = [one.version for one in requirement.specifier if one.operator in ("==", "===")]
    return exact[0] if exact and not exact[0].endswith("*") else ""


def volume(entry: Any) -> tuple[str, str]:
    """Source and target of a volume of a service; the source is empty if it has no name."""
    if isinstance(entry, dict):
        return str(entry.get("source") or ""), str(entry.get("target", "")).rstrip("/")
    source, _, rest = str(entry).partition(":")
    return (source, rest.partition(":")[0].rstrip("/")) if rest else ("", source.rstrip("/"))


def data_folder(service: Service) -> str:
    """Where the image of PostgreSQL keeps its rows. Since 18 that is below a folder for each major version."""
    if own := service.own_environment.get("PGDATA"):
        return own.rstrip("/")
    tag = str(service.data.get("image", "")).rpartition("/")[2].partition(":")[2].partition("@")[0]
    number = re.match(r"\d+", tag)
    major = int(number[0]) if number else 18
    return f"/var/lib/postgresql/{major}/docker" if major >= 18 else "/var/lib/postgresql/data"


def holds(goal: str, folder: str) -> bool:
    """Whether a volume that is mounted at `goal` holds `folder`; images before 18 have one of their own at `data`."""
    if folder == "/var/lib/postgresql/data":
        return goal == folder
    return folder == goal or folder.startswith(f"{goal}/")
