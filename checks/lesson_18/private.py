"""Finds secrets in what a release is made of: in variables, in URLs, and in texts of the shell."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator
from typing import Any

from checks.lesson_18.compose import Compose, Service, pairs
from checks.lesson_18.running import SECRETS

SECRETIVE = re.compile(r"(?:PASSWORD|PASSWD|SECRET|TOKEN|API_?KEY|PRIVATE_KEY|CREDENTIALS?)$", re.IGNORECASE)
"""How the name of a variable ends that holds a secret. POSTGRES_PASSWORD_FILE and SECRETS_DIR do not."""

URL = re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s:/@\"']*:(?!\$|<|pass(?:word)?@)[^\s/@\"']+@", re.IGNORECASE)
"""A URL with a password, other than one that only shows where it goes."""

ASSIGNED = re.compile(r"\b\w*(?:PASSWORD|SECRET|TOKEN|API_?KEY)=[\"']?(?![\s$\"'/`;])\S")
"""A variable that a text of the shell sets to something other than a variable, a command or a file."""

PLACE = {"context": ".", "dockerfile": "Dockerfile"}
"""The keys of `build` that say where the Dockerfile is, with what is meant without them."""

NOT_SHIPPED = "deploy/ci.yaml"
"""Has the password of a database that lives for one run of a workflow."""


def variables(service: Service) -> list[str]:
    """The names of variables that hold secrets, of a service and of all stages of its image."""
    values = pairs(service.build.get("args")) | service.own_environment
    found = {name for name, value in values.items() if value and SECRETIVE.search(name)}
    if service.build:
        built = {name for stage in service.stages.values() for name in stage.named}
        found |= {name for name in built if SECRETIVE.search(name)}
        found |= {name for name in built | {*values} if name.upper() in SECRETS}
    return sorted(found)


def written(compose: Compose, services: Iterable[str]) -> list[str]:
    """The files in which a password or a key is written; for compose.yaml also under which keys."""
    found = [f"compose.yaml ({where})" for where, text in _texts(compose.data, "") if _has(text)]
    places: set[str] = set()
    for service in map(compose.service, services):
        places |= {*service.image.files.values()}
        build = service.build
        places.add(posixpath.normpath(posixpath.join(*(str(build.get(key, usual)) for key, usual in PLACE.items()))))
    for name in sorted(places - {NOT_SHIPPED}):
        text = (compose.folder / name).read_text(encoding="utf-8", errors="replace")
        if URL.search(text) or (not name.endswith(".py") and ASSIGNED.search(text)):
            found.append(name)
    return found


def _has(text: str) -> bool:
    return bool(URL.search(text) or ASSIGNED.search(text))


def _texts(value: Any, where: str) -> Iterator[tuple[str, str]]:
    """The texts of a compose file, each with the keys that lead to it."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from _texts(one, f"{where}.{key}".lstrip("."))
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one, where)
    elif isinstance(value, str):
        yield where, value
