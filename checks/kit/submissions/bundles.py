"""Hand-ins that are git bundles: looked into with git, and never checked out.

A bundle carries objects and names, no hooks and no configuration; what git would read of the instructor's own is
turned off all the same. Objects can be made to unpack into far more than they weigh, so each command's time, memory
and output are limited.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from checks.kit.submissions.folders import kind, open_regular
from checks.kit.submissions.source import HAND_IN_BYTES, Content, Entry, HandInUnreadable

BUNDLE_BYTES = 100_000_000
"""Bytes of a bundle; the workbook with its whole history has a few million."""

LIST_BYTES = 16_000_000
"""Bytes of a listing of all files; 100,000 of them need about as much."""

MEMORY = 1_000_000
"""Kilobytes of memory that git may ask for."""

SECONDS = 60
"""Time for everything that git does about one bundle."""

SETTINGS = ("core.hooksPath=/dev/null", "core.fsmonitor=false", "core.bigFileThreshold=2m", "pack.threads=1")

LIMITED = 'ulimit -f "$1"; ulimit -t "$2"; ulimit -v "$3"; shift 3; exec "$@"'
"""A shell sets the limits: not every system knows one of memory, and Python's own way may hang where threads run."""

HEAD = re.compile(r"^([0-9a-f]{40,64}) (\S+)$", re.MULTILINE)
TREE_LINE = re.compile(rb"([0-7]{6}) (\w+) ([0-9a-f]{40,64}) +(\d+|-|BAD)\t(.+)", re.DOTALL)
DAMAGED = "It cannot be read as a git bundle. Ask for a new one: git bundle create NAME.bundle --all"


@contextmanager
def opened(path: Path) -> Iterator[Bundle]:
    """The bundle as a Source. Raises HandInUnreadable where it is none, and OSError where it cannot be opened."""
    with tempfile.TemporaryDirectory(prefix="bundle-", ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch)
        _copy(path, folder / "bundle")
        yield Bundle(_Git(folder))


def _copy(path: Path, to: Path) -> None:
    """A copy has a name that git takes for nothing else, and does not change."""
    with open_regular(path) as file, to.open("wb") as copy:
        size = os.fstat(file.fileno()).st_size
        if size > BUNDLE_BYTES:
            most = BUNDLE_BYTES // 1_000_000
            raise HandInUnreadable(f"The bundle is larger than {most} MB. Ask for a .zip of the lessons folder.")
        while chunk := file.read(min(1 << 20, size)):
            size -= len(chunk)
            copy.write(chunk)


class Bundle:
    """A bundle: a Source of what its HEAD holds, or its main, master or only branch."""

    def __init__(self, git: _Git) -> None:
        self._git = git
        self._found: dict[str, str] = {}

    def entries(self) -> Iterator[Entry]:
        self._git("init", "-q", "--bare", "--template=", ".")
        tip = _tip(self._git("bundle", "list-heads", "bundle").decode(errors="replace"))
        self._git("bundle", "unbundle", "bundle", most=BUNDLE_BYTES + LIST_BYTES)
        for line in self._git("ls-tree", "-r", "-l", "-z", tip, most=LIST_BYTES).split(b"\0")[:-1]:
            match = TREE_LINE.fullmatch(line)
            if not match:
                raise HandInUnreadable(DAMAGED)
            yield self._entry(*match.groups())

    def _entry(self, mode: bytes, what: bytes, name: bytes, size: bytes, raw: bytes) -> Entry:
        path = raw.decode(errors="surrogateescape")
        self._found[path] = name.decode()
        if what == b"commit":
            return Entry(path, kind="a submodule")
        if not size.isdigit():
            return Entry(path, trouble="the bundle lacks it")
        return Entry(path, int(size), kind(int(mode, 8)))

    def contents(self, chosen: Sequence[Entry]) -> Iterator[Content]:
        names = [self._found[entry.path] for entry in chosen]
        asked = "".join(f"{name}\n" for name in names).encode()
        # the sizes that ls-tree gave are git's own, and add up to no more than a hand-in may have
        answer = self._git("cat-file", "--batch", given=asked, most=HAND_IN_BYTES + LIST_BYTES)
        at = 0
        for entry, name in zip(chosen, names, strict=True):
            header = f"{name} blob {entry.size}\n".encode()
            if not answer.startswith(header, at):
                raise HandInUnreadable(DAMAGED)
            begin = at + len(header)
            at = begin + entry.size + 1
            yield Content(entry.path, answer[begin : at - 1])


def _tip(heads: str) -> str:
    """The commit to grade, of lines with an object and a name each."""
    named: dict[str, str] = {name: commit for commit, name in HEAD.findall(heads)}
    branches = [name for name in named if name.startswith("refs/heads/")]
    for name in ("HEAD", "refs/heads/main", "refs/heads/master", *(branches if len(branches) == 1 else ())):
        if name in named:
            return named[name]
    raise HandInUnreadable(
        "The bundle has no HEAD, and none of its branches is main or master. "
        "Ask for a new one: git bundle create NAME.bundle HEAD"
    )


class _Git:
    """Runs git in a folder, on the bare repository there, for SECONDS in all."""

    def __init__(self, folder: Path) -> None:
        git = shutil.which("git")
        if git is None:
            raise HandInUnreadable("A .bundle is read with git, which is not installed here. Install it and try again.")
        self._command = [git, *(part for setting in SETTINGS for part in ("-c", setting))]
        self._folder = folder
        self._ends = time.monotonic() + SECONDS

    def __call__(self, *arguments: str, given: bytes = b"", most: int = LIST_BYTES) -> bytes:
        """What git printed. Raises HandInUnreadable where it failed, took too long or needed too much."""
        limits = [str(most // 512), str(SECONDS), str(MEMORY)]
        with (
            tempfile.TemporaryFile(dir=self._folder) as asked,
            tempfile.TemporaryFile(dir=self._folder) as said,
            tempfile.TemporaryFile(dir=self._folder) as complaint,
        ):
            asked.write(given)
            asked.seek(0)
            process = subprocess.Popen(
                ["sh", "-c", LIMITED, "sh", *limits, *self._command, *arguments],
                stdin=asked, stdout=said, stderr=complaint,
                cwd=self._folder, env=self._environment(), start_new_session=True,
            )  # fmt: skip
            self._await(process)
            said.seek(0)
            complaint.seek(0)
            if process.returncode == 0:
                return said.read()
            if b"prerequisite" in complaint.read(LIST_BYTES):
                raise HandInUnreadable(
                    "The bundle holds only the last part of a history. Ask for all of it: "
                    "git bundle create NAME.bundle --all"
                )
            raise HandInUnreadable(DAMAGED)

    def _await(self, process: subprocess.Popen[bytes]) -> None:
        try:
            process.wait(max(self._ends - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            raise HandInUnreadable(f"git needed more than {SECONDS} s for it. Ask for a .zip instead.") from None
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # git starts others
                process.wait()

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self._folder),
            "LC_ALL": "C",
            "GIT_DIR": str(self._folder),
            "GIT_CEILING_DIRECTORIES": str(self._folder),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_ALLOW_PROTOCOL": "none",
            "GIT_NO_LAZY_FETCH": "1",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_TERMINAL_PROMPT": "0",
        }
