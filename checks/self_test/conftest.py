"""What the workbook's tests of itself share: a live server, and folders for servers of their own."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from checks.kit.postgres import Server, find

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
async def server() -> AsyncIterator[Server]:
    """The server that the environment names, as for a learner."""
    server = await asyncio.to_thread(find, ROOT, os.environ)
    yield server
    server.close()


@pytest.fixture(scope="session")
def copied() -> Callable[[Path], Path]:
    """Copies the workbook as it stands into a folder: a checkout with lessons that may be changed, and a history."""

    def copied(to: Path) -> Path:
        names = (".venv*", ".workbook", ".git", "__pycache__", "self_test", ".mypy_cache")
        shutil.copytree(ROOT, to, ignore=shutil.ignore_patterns(*names))
        for command in ("init -q", "add -A", "-c user.name=x -c user.email=x@x commit -q -m shipped"):
            subprocess.run(["git", *command.split()], cwd=to, check=True)
        return to

    return copied


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path that every account may pass; servers below it are ended afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="wb-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    for file in folder.rglob("postmaster.pid"):
        try:
            os.kill(int(file.read_text().split()[0]), signal.SIGQUIT)
        except (OSError, ValueError, IndexError):
            continue
    shutil.rmtree(folder, ignore_errors=True)
