"""Runs the command of an image as an engine would: in a copy of the image's files, with programs that the image has.

    python -m checks.kit.service.inside.container '{"files": [...], "command": [...], ...}'

There is no container. The process becomes the command, so a signal to it is one to the first process of the container.
What is left of the real one: paths of the image lead into the copy, in the command, in variables and in scripts.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn

NOT_FOUND = 127
"""The exit code of a shell, and of engines, for a program that is not there."""

MOUNTED_SECRETS = "/run/secrets"
"""Where engines put the files of secrets."""

PATH = re.compile(r"(?<![\w.${}/-])/[\w./+-]+")
"""An absolute path in a text."""

COMPILED = Path(uvicorn.__file__).parent / "__pycache__"
"""Is there where installed packages have been compiled; in a sandbox they can only be compiled elsewhere."""

SYSTEM = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSpec:
    """What to run, as plain data.

    `files` are pairs: where a file is below the lesson's folder, and its absolute path in the image. `command` is what
    the engine would execute, and `env` are the variables of image and service. `passed` names variables of this process
    that the container gets, too, and `secrets` are names of files with the name of the variable that is their content.
    `programs` are those of the image's system; Python's come from this interpreter's packages.
    """

    files: list[list[str]]
    workdir: str
    command: list[str]
    env: dict[str, str] = field(default_factory=dict)
    passed: list[str] = field(default_factory=list)
    secrets: dict[str, str] = field(default_factory=dict)
    programs: list[str] = field(default_factory=list)


class Container:
    """The copy of an image's files, in a folder of its own."""

    def __init__(self, spec: ContainerSpec) -> None:
        self.spec = spec
        self.folder = Path(tempfile.mkdtemp(prefix="container-"))
        self.root, self.programs, self.secrets = (self.folder / name for name in ("root", "bin", "secrets"))
        self._packages = Path(sys.executable).parent

    def make(self) -> None:
        source = Path.cwd()
        self._below_root(self.spec.workdir).mkdir(parents=True)
        for name, place in self.spec.files:
            copy = self._below_root(place)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, copy)
        for _, place in self.spec.files:
            self._adapt(self._below_root(place))
        self.programs.mkdir()
        for name in self.spec.programs:
            if found := shutil.which(name, path=SYSTEM):
                (self.programs / name).symlink_to(found)
        self.secrets.mkdir()
        for name, variable in self.spec.secrets.items():
            # with a newline at its end, as `echo` and most tools write a file
            (self.secrets / name).write_text(os.environ.get(variable, "") + "\n", encoding="utf-8")

    def run(self) -> None:
        """Becomes the command; ends the process where there is no such program."""
        passed = {name: os.environ[name] for name in self.spec.passed if name in os.environ}
        env = {
            "HOME": tempfile.gettempdir(),
            "LANG": "C.UTF-8",
            **{name: self._moved(value) for name, value in self.spec.env.items()},
            **passed,
            "PATH": f"{self.programs}:{self._packages}",
            "SECRETS_DIR": str(self.secrets),
        }
        env.pop("PYTHONDONTWRITEBYTECODE", None)  # what is compiled now, a build of the image has compiled long ago
        if sys.pycache_prefix and not COMPILED.is_dir():
            env["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix
        command = [self._moved(word) for word in self.spec.command]
        os.chdir(self._below_root(self.spec.workdir))
        try:
            os.execvpe(command[0], command, env)
        except OSError as error:
            print(f"exec: {self.spec.command[0]!r}: {error.strerror}; see PATH and the image's programs", file=sys.stderr)
            raise SystemExit(NOT_FOUND) from None

    def _adapt(self, file: Path) -> None:
        """Makes a script executable, which it is in the image or is called with its shell, and moves its paths."""
        text = file.read_bytes()
        if text.startswith(b"#!") or file.suffix == ".sh":
            first, newline, rest = text.decode(errors="replace").partition("\n")
            file.write_text(first + newline + self._moved(rest), encoding="utf-8")
            file.chmod(0o755)

    def _moved(self, text: str) -> str:
        return PATH.sub(lambda match: self._place(match[0]), text)

    def _place(self, path: str) -> str:
        """Where a path of the image is on this machine."""
        if path == MOUNTED_SECRETS or path.startswith(f"{MOUNTED_SECRETS}/"):
            return str(self.secrets) + path.removeprefix(MOUNTED_SECRETS)
        if self._below_root(path).exists():
            return str(self._below_root(path))
        folder, name = os.path.split(path)
        if os.path.basename(folder) in ("bin", "sbin"):
            packaged = self._packages / name
            return str(packaged if packaged.exists() and name not in self.spec.programs else self.programs / name)
        return path

    def _below_root(self, path: str) -> Path:
        return self.root / os.path.normpath(path).lstrip("/")


def spec_of(text: str) -> ContainerSpec:
    fields: dict[str, Any] = json.loads(text)
    return ContainerSpec(**fields)


if __name__ == "__main__":
    container = Container(spec_of(sys.argv[1]))
    container.make()
    container.run()
