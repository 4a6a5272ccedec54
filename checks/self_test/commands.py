"""Runs pytest and the `workbook` command as a learner types them, in this checkout or in a copy of it."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from checks.kit.lessons.paths import ROOT

LIMIT = 170
"""Seconds after which a command counts as hung; a bound for failures."""
WORKBOOK = (
    sys.executable,
    "-c",
    "import sys; sys.path.insert(0, '.'); sys.argv[0] = 'workbook'; from checks.kit.cli import main; main()",
)
"""The `workbook` command of the checkout in which it runs."""
OURS = ("DATABASE_URL", "PYTEST_ADDOPTS", "COLUMNS", "LINES")
"""What the environment of these tests may hold and a command must not see."""
ENVIRON = {name: value for name, value in os.environ.items() if name not in OURS}


def pytest_run(*arguments: str | Path, checkout: Path = ROOT, **environ: str) -> subprocess.CompletedProcess[str]:
    """`pytest arguments...`; `environ` is added to the environment."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]  # the cache is ours
    return subprocess.run(command, cwd=checkout, capture_output=True, text=True, env=ENVIRON | environ, timeout=LIMIT)


def workbook(checkout: Path, *arguments: str, stdin: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
    """`workbook arguments...` in a terminal's width of 80 columns, with `stdin` typed at once."""
    return subprocess.run(
        [*WORKBOOK, *arguments],
        cwd=checkout,
        input=stdin,
        capture_output=True,
        text=True,
        env=ENVIRON | {"COLUMNS": "80"} | environ,
        timeout=LIMIT,
    )


def as_user(user: int) -> list[str]:
    """The beginning of a command that root types and that then runs as another user; skips the test if that fails.

    It may read all files, as root may: the interpreter can be in a folder of root's. All other rights are gone.
    """
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv, of the package util-linux, is not installed: root cannot be another user")
    rights = "+dac_override,+dac_read_search"
    who = [f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    prefix = ["setpriv", *who, f"--inh-caps={rights}", f"--ambient-caps={rights}"]
    if subprocess.run([*prefix, sys.executable, "-c", ""], capture_output=True).returncode:
        pytest.skip("root may not become another user here")
    return prefix


def copy_workbook(to: Path) -> Path:
    """Copies the workbook as it stands into a folder: a checkout with lessons that may be changed, and a history."""
    names = (".venv*", ".workbook", ".git", "__pycache__", "self_test", ".mypy_cache")
    shutil.copytree(ROOT, to, ignore=shutil.ignore_patterns(*names))
    for command in ("init -q", "add -A", "-c user.name=x -c user.email=x@x commit -q -m shipped"):
        subprocess.run(["git", *command.split()], cwd=to, check=True)
    return to


async def read_until(stream: asyncio.StreamReader, text: str) -> str:
    """What is printed up to `text`; fails at the end of the output, where reading on would never wait."""
    printed = ""
    while text not in printed:
        line = (await stream.readline()).decode()
        assert line, f"{text!r} was not printed:\n{printed}"
        printed += line
    return printed


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
