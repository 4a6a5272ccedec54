"""Reads compose.yaml: what a service runs, by the settings of its image and by its own."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from checks.kit.report import expect
from checks.lesson_18.context import context_of
from checks.lesson_18.dockerfile import Image, expanded, read_stages

FILES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
INITS = ("tini", "tini-static", "dumb-init", "docker-init", "catatonit")
"""Programs that pass signals on, so what they start is as good as the first process."""

DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?(?:(\d+)ms)?")
UNREADABLE = "Staging does not start."
SECTION = "The order of the start"


class Compose:
    """A compose file, with defaults in place of its variables."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = next((folder / name for name in FILES if (folder / name).is_file()), None)
        expect(path is not None, "There is no compose.yaml.", because=UNREADABLE, section=SECTION)
        assert path is not None
        try:
            data = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            data, reason = None, str(error)
        else:
            reason = "it is no mapping"
        services = data.get("services") if isinstance(data, dict) else None
        good = isinstance(services, dict) and all(isinstance(one, dict) for one in services.values())
        expect(good, f"{path.name} cannot be read: {reason}.", because=UNREADABLE, section=SECTION)
        self.data: dict[str, Any] = _interpolated(data)

    @cached_property
    def services(self) -> dict[str, Service]:
        return {name: Service(name, data, self) for name, data in self.data["services"].items()}

    def service(self, name: str) -> Service:
        known = self.services
        expect(
            name in known,
            f"compose.yaml has no service {name}, only {', '.join(known)}.",
            because=UNREADABLE,
            section=SECTION,
        )
        return known[name]


@dataclass(frozen=True)
class Service:
    """A service of the compose file."""

    name: str
    data: Mapping[str, Any]
    compose: Compose

    @cached_property
    def build(self) -> Mapping[str, Any]:
        """The keys of `build`, also of another service's with the same image; empty if somebody else builds it."""
        build = self.data.get("build")
        if not build and (image := self.data.get("image")):
            same = [one for one in self.compose.data["services"].values() if one.get("image") == image]
            build = next((one["build"] for one in same if one.get("build")), None)
        build = build or {}
        return {"context": build} if isinstance(build, str) else build

    @cached_property
    def stages(self) -> dict[str, Image]:
        expect(bool(self.build), f"The service {self.name} has no `build`.", because=UNREADABLE, section=SECTION)
        context = (self.compose.folder / str(self.build.get("context", "."))).resolve()
        path = context / str(self.build.get("dockerfile", "Dockerfile"))
        return read_stages(path, context_of(context, path), pairs(self.build.get("args")))

    @cached_property
    def image(self) -> Image:
        target = str(self.build.get("target", "") if "target" in self.build else "")
        expect(target in self.stages, f"There is no stage {target}.", because=UNREADABLE, section=SECTION)
        return self.stages[target]

    @property
    def command(self) -> list[str]:
        """What the engine executes, without an init."""
        entrypoint, command = self.image.entrypoint, self.image.command
        if self.image.in_shell:
            command = []
        if self.data.get("entrypoint") is not None:
            entrypoint, command = words(self.data["entrypoint"]), []
        if self.data.get("command") is not None and not (self.image.in_shell and "entrypoint" not in self.data):
            command = words(self.data["command"])
        return without_init([*entrypoint, *command])

    @property
    def environment(self) -> dict[str, str]:
        return self.image.env | self.own_environment

    @property
    def own_environment(self) -> dict[str, str]:
        """The variables of the service, without those of its image."""
        return pairs(self.data.get("environment"))

    @property
    def secrets(self) -> dict[str, str]:
        """The secrets that it gets: names of files, and of the secrets that are in them."""
        found = {}
        for entry in self.data.get("secrets") or []:
            source = entry if isinstance(entry, str) else str(entry.get("source", ""))
            target = source if isinstance(entry, str) else str(entry.get("target", source))
            found[target.rpartition("/")[2]] = source
        return found

    @property
    def health(self) -> list[str]:
        """The command of its health check; empty if it has none."""
        check = self.data.get("healthcheck")
        if not isinstance(check, dict) or ("test" not in check and not check.get("disable")):
            return [] if not self.build else self.image.health
        return [] if check.get("disable") else test_of(check["test"])

    @property
    def user(self) -> str:
        return str(self.data["user"]) if self.data.get("user") is not None else self.image.user

    @property
    def stop_signal(self) -> str:
        return str(self.data.get("stop_signal") or self.image.stop_signal)

    @property
    def grace(self) -> float:
        """Seconds between the signal to stop and SIGKILL; 10, if nothing else is said."""
        text = str(self.data.get("stop_grace_period") or "10s")
        match = DURATION.fullmatch(text)
        hours, minutes, seconds, thousandths = (int(part or 0) for part in (match.groups() if match else (0, 0, 10, 0)))
        return hours * 3600 + minutes * 60 + seconds + thousandths / 1000

    @property
    def needs(self) -> dict[str, str]:
        """What it waits for: the condition of each service in `depends_on`, with `required: false` if that is there."""
        given = self.data.get("depends_on") or {}
        if isinstance(given, list):
            return dict.fromkeys(given, "service_started")
        return {name: _condition(one or {}) for name, one in given.items()}

    @property
    def restart(self) -> str:
        """When an engine starts it again: `no`, `always`, `on-failure:3`. `deploy` comes before `restart`."""
        if policy := (self.data.get("deploy") or {}).get("restart_policy"):
            condition = str(policy.get("condition", "any"))
            return {"none": "no", "any": "always"}.get(condition, condition)
        again = self.data.get("restart", "no")
        return "no" if again is False else str(again)


def _condition(dependency: Mapping[str, Any]) -> str:
    condition = str(dependency.get("condition", "service_started"))
    return condition if dependency.get("required", True) else f"{condition}, required: false"


def test_of(test: Any) -> list[str]:
    """The command of a health check: a text is one for the shell, and a list says in its first word what it is."""
    if isinstance(test, str):
        return ["/bin/sh", "-c", test]
    kind, *rest = [str(word) for word in test] or ["NONE"]
    if kind == "CMD-SHELL":
        return ["/bin/sh", "-c", *rest]
    return rest if kind == "CMD" else []


def words(value: Any) -> list[str]:
    """A command of compose: a list, or a text that is split into words and that no shell reads."""
    return shlex.split(value) if isinstance(value, str) else [str(word) for word in value]


def pairs(value: Any) -> dict[str, str]:
    """Names and values, written as a mapping or as a list of NAME=VALUE."""
    if isinstance(value, dict):
        return {str(name): _text(one) for name, one in value.items() if one is not None}
    split = (str(one).partition("=") for one in value or [])
    return {name: text for name, mark, text in split if mark}


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def without_init(command: list[str]) -> list[str]:
    """A command without what passes signals on to it: an init, or `uv run`."""
    while command:
        name = command[0].rpartition("/")[2]
        if name in INITS:
            command = command[1:]
        elif name == "uv" and command[1:2] == ["run"]:
            command = command[2:]
        else:
            break
        while command and command[0].startswith("-"):
            end, command = command[0] == "--", command[1:]
            if end:
                break
    return command


def _interpolated(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _interpolated(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_interpolated(one) for one in value]
    return expanded(value.replace("$$", "\\$"), {}) if isinstance(value, str) else value
