"""Runs the command of an image as an engine would: in a copy of the image's files, with programs that the image has.

    python -m checks.kit.service.inside.container '{"files": [...], "command": [...], ...}'

There is no container. Paths of the image lead into the copy, in the command, in variables and in scripts. Folders for
temporary files are its own, in Python's texts too. A signal goes to the command alone, the first process of a
container. One that it has no handler for is not delivered, which is what the kernel does with the first process. When
it ends, all that it has started ends with it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
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

TEMPORARY = ("/tmp", "/var/tmp", "/var/lock", "/run/lock", "/dev/shm")
"""Folders that each container has for itself. Two containers that share one would see each other's lock files."""

QUOTED_TEMPORARY = re.compile(rf"""(?<=["'])(?:{"|".join(TEMPORARY)})(?=["'/])""")
"""The same at the beginning of a text of Python."""

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
        self.temporary = self.folder / "tmp"
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
        self.temporary.mkdir()
        for name in self.spec.programs:
            # dash is the shell of most images; bash, as on other systems, would run a single command in its own place
            if found := (name == "sh" and shutil.which("dash", path=SYSTEM)) or shutil.which(name, path=SYSTEM):
                (self.programs / name).symlink_to(found)
        self.secrets.mkdir()
        for name, variable in self.spec.secrets.items():
            # with a newline at its end, as `echo` and most tools write a file
            (self.secrets / name).write_text(os.environ.get(variable, "") + "\n", encoding="utf-8")

    def run(self) -> int:
        """Runs the command to its end; its exit code, as an engine reports it."""
        signals = {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}
        awaited = {*signals, signal.SIGCHLD}
        signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
        pid = os.fork()
        if pid == 0:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, awaited)
            self._become()
        while True:
            number = signal.sigwait(awaited)
            if number != signal.SIGCHLD and handles(pid, number):
                os.kill(pid, number)
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code

    def _become(self) -> None:
        """Turns this process into the command, or ends it where there is no such program."""
        passed = {name: os.environ[name] for name in self.spec.passed if name in os.environ}
        env = {
            "HOME": str(self.temporary),
            "TMPDIR": str(self.temporary),
            "LANG": "C.UTF-8",
            # uvicorn's supervisor kills workers that import for longer than 5 s, as on a busy machine
            "UVICORN_TIMEOUT_WORKER_HEALTHCHECK": "120",
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
            os.write(2, f"exec: {self.spec.command[0]!r}: {error.strerror}, in the image\n".encode())
            os._exit(NOT_FOUND)

    def _adapt(self, file: Path) -> None:
        """Makes a script executable, which it is in the image or is called with its shell, and moves its paths."""
        text = file.read_bytes()
        if file.suffix == ".py" and b"/" in text:
            code = text.decode(errors="surrogateescape")
            moved = QUOTED_TEMPORARY.sub(lambda match: self._place(match[0]), code)
            if moved != code:
                file.write_text(moved, encoding="utf-8", errors="surrogateescape")
            return
        if text.startswith(b"#!") or file.suffix == ".sh":
            # the interpreter in a first line is one of this machine
            first, newline, rest = text.decode(errors="replace").partition("\n")
            first = first if first.startswith("#!") else self._moved(first)
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
        for folder in TEMPORARY:
            if path == folder or path.startswith(f"{folder}/"):
                return str(self.temporary) + path.removeprefix(folder)
        name = Path(path).name
        if Path(path).parent.name in ("bin", "sbin"):
            packaged = self._packages / name
            return str(packaged if packaged.exists() and name not in self.spec.programs else self.programs / name)
        return path

    def _below_root(self, path: str) -> Path:
        return self.root / os.path.normpath(path).lstrip("/")


def handles(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal; True where the system does not tell."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return True
    caught = next((line.split()[1] for line in lines if line.startswith("SigCgt:")), "0")
    return bool(int(caught, 16) >> (number - 1) & 1)


def spec_of(text: str) -> ContainerSpec:
    fields: dict[str, Any] = json.loads(text)
    return ContainerSpec(**fields)


if __name__ == "__main__":
    container = Container(spec_of(sys.argv[1]))
    container.make()
    raise SystemExit(container.run())
