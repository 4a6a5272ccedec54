"""Submissions that are git bundles: read with git, and never checked out.

A bundle holds objects and names, no hooks and no configuration; those of the instructor are turned off all the same.
Objects can unpack into far more bytes than they have, so the time, memory and output of each command are limited.
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
from datetime import datetime
from pathlib import Path

from checks.kit.submissions.intake.folders import kind, open_regular
from checks.kit.submissions.intake.source import MAX_SUBMISSION_BYTES, Content, Entry, SubmissionUnreadable, moment

MAX_BUNDLE_BYTES = 100_000_000
"""Bytes of a bundle; the workbook with its whole history has a few million."""

MAX_LISTING_BYTES = 16_000_000
"""Bytes of a listing of all files; 100,000 files need about as many."""

MAX_MEMORY_KILOBYTES = 1_000_000
"""Memory that git may ask for, in kilobytes."""

MAX_SECONDS = 60
"""Seconds for all git commands on one bundle."""

SETTINGS = ("core.hooksPath=/dev/null", "core.fsmonitor=false", "core.bigFileThreshold=2m", "pack.threads=1")

LIMITED_COMMAND = 'ulimit -f "$1"; ulimit -t "$2"; ulimit -v "$3"; shift 3; exec "$@"'
"""A shell sets the limits: macOS has none of memory, and Python's preexec_fn may hang in a program with threads."""

HEAD_LINE = re.compile(r"^([0-9a-f]{40,64}) (\S+)$", re.MULTILINE)
TREE_LINE = re.compile(rb"([0-7]{6}) (\w+) ([0-9a-f]{40,64}) +(\d+|-|BAD)\t(.+)", re.DOTALL)
COMMITTER_LINE = re.compile(rb"^committer .*> (\d{1,12}) [+-]\d{4}$", re.MULTILINE)
DAMAGED = "It cannot be read as a git bundle. Ask for a new one: git bundle create NAME.bundle --all"


@contextmanager
def opened(path: Path) -> Iterator[Bundle]:
    """The bundle as a Source. Raises SubmissionUnreadable if it is none, and OSError if it cannot be opened."""
    with tempfile.TemporaryDirectory(prefix="bundle-", ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch)
        _copy(path, folder / "bundle")
        yield Bundle(_Git(folder))


def _copy(path: Path, to: Path) -> None:
    """Copies the bundle: the copy has a name that git cannot take for an option, and does not change meanwhile."""
    with open_regular(path) as file, to.open("wb") as copy:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_BUNDLE_BYTES:
            megabytes = MAX_BUNDLE_BYTES // 1_000_000
            raise SubmissionUnreadable(
                f"The bundle is larger than {megabytes} MB. Ask for a .zip of the lessons folder."
            )
        while chunk := file.read(min(1 << 20, size)):
            size -= len(chunk)
            copy.write(chunk)


class Bundle:
    """A bundle: a Source of the files of its HEAD, or else of its main, master or only branch."""

    def __init__(self, git: _Git) -> None:
        self._git = git
        self._objects: dict[str, str] = {}
        self._committed: datetime | None = None

    def entries(self) -> Iterator[Entry]:
        self._git("init", "-q", "--bare", "--template=", ".")
        tip = _tip(self._git("bundle", "list-heads", "bundle").decode(errors="replace"))
        self._git("bundle", "unbundle", "bundle", max_output=MAX_BUNDLE_BYTES + MAX_LISTING_BYTES)
        self._committed = _committed(self._git("cat-file", "commit", tip))
        for line in self._git("ls-tree", "-r", "-l", "-z", tip, max_output=MAX_LISTING_BYTES).split(b"\0")[:-1]:
            match = TREE_LINE.fullmatch(line)
            if not match:
                raise SubmissionUnreadable(DAMAGED)
            yield self._entry(*match.groups())

    def _entry(self, mode: bytes, object_type: bytes, name: bytes, size: bytes, path_bytes: bytes) -> Entry:
        path = path_bytes.decode(errors="surrogateescape")
        self._objects[path] = name.decode()
        if object_type == b"commit":
            return Entry(path, kind="a submodule")
        if not size.isdigit():
            return Entry(path, trouble="the bundle lacks it")
        return Entry(path, int(size), kind(int(mode, 8)))

    def committed(self) -> datetime | None:
        return self._committed

    def contents(self, chosen: Sequence[Entry]) -> Iterator[Content]:
        names = [self._objects[entry.path] for entry in chosen]
        request = "".join(f"{name}\n" for name in names).encode()
        # git computed the sizes of the listing, and their sum has been held to MAX_SUBMISSION_BYTES
        output = self._git("cat-file", "--batch", given=request, max_output=MAX_SUBMISSION_BYTES + MAX_LISTING_BYTES)
        position = 0
        for entry, name in zip(chosen, names, strict=True):
            header = f"{name} blob {entry.size}\n".encode()
            if not output.startswith(header, position):
                raise SubmissionUnreadable(DAMAGED)
            start = position + len(header)
            position = start + entry.size + 1  # a newline follows each file
            yield Content(entry.path, output[start : position - 1])


def _committed(commit: bytes) -> datetime | None:
    """When a commit was made, from its header."""
    match = COMMITTER_LINE.search(commit.partition(b"\n\n")[0])
    return moment(int(match[1])) if match else None


def _tip(heads: str) -> str:
    """The commit to grade. `heads` has a line for each head of the bundle: a commit and a name."""
    named: dict[str, str] = {name: commit for commit, name in HEAD_LINE.findall(heads)}
    branches = [name for name in named if name.startswith("refs/heads/")]
    for name in ("HEAD", "refs/heads/main", "refs/heads/master", *(branches if len(branches) == 1 else ())):
        if name in named:
            return named[name]
    raise SubmissionUnreadable(
        "The bundle has no HEAD, and none of its branches is main or master. "
        "Ask for a new one: git bundle create NAME.bundle HEAD"
    )


class _Git:
    """Runs git on the bare repository in a folder, for MAX_SECONDS in all."""

    def __init__(self, folder: Path) -> None:
        git = shutil.which("git")
        if git is None:
            raise SubmissionUnreadable(
                "A .bundle is read with git, which is not installed here. Install it and try again."
            )
        self._command = [git, *(part for setting in SETTINGS for part in ("-c", setting))]
        self._folder = folder
        self._deadline = time.monotonic() + MAX_SECONDS

    def __call__(self, *arguments: str, given: bytes = b"", max_output: int = MAX_LISTING_BYTES) -> bytes:
        """What git printed. Raises SubmissionUnreadable if it failed, took too long or needed too much."""
        limits = [str(max_output // 512), str(MAX_SECONDS), str(MAX_MEMORY_KILOBYTES)]
        with (
            tempfile.TemporaryFile(dir=self._folder) as stdin,
            tempfile.TemporaryFile(dir=self._folder) as stdout,
            tempfile.TemporaryFile(dir=self._folder) as stderr,
        ):
            stdin.write(given)
            stdin.seek(0)
            process = subprocess.Popen(
                ["sh", "-c", LIMITED_COMMAND, "sh", *limits, *self._command, *arguments],
                stdin=stdin, stdout=stdout, stderr=stderr,
                cwd=self._folder, env=self._environment(), start_new_session=True,
            )  # fmt: skip
            self._wait(process)
            stdout.seek(0)
            stderr.seek(0)
            if process.returncode == 0:
                return stdout.read()
            if b"prerequisite" in stderr.read(MAX_LISTING_BYTES):
                raise SubmissionUnreadable(
                    "The bundle holds only the last part of a history. Ask for all of it: "
                    "git bundle create NAME.bundle --all"
                )
            raise SubmissionUnreadable(DAMAGED)

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        try:
            process.wait(max(self._deadline - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            raise SubmissionUnreadable(
                f"git needed more than {MAX_SECONDS} s for it. Ask for a .zip instead."
            ) from None
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # the whole group: git starts other processes
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
