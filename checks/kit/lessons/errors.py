"""Errors that a person can do something about."""

from __future__ import annotations

import errno
import os
import shlex
from pathlib import Path

from checks.kit.lessons.paths import ROOT, STATE, display_path


class WorkbookError(Exception):
    """Something outside the code is wrong; the message says what, and the command to type next.

    The command line and pytest print the message alone, without a traceback.
    """


def explained(error: OSError) -> str:
    """What to do about an error of the system that has nothing to do with anybody's code; empty if none is known."""
    if error.errno == errno.ENOSPC:
        return (
            f"The disk is full ({error.filename or 'while writing'}). Free some space and run the same command again."
        )
    if error.errno == errno.EAGAIN and error.strerror == os.strerror(errno.EAGAIN):  # not a full pipe: Python says so
        return f"The system starts no more processes ({error.strerror}). End other programs, or raise ulimit -u."
    path = Path(os.fsdecode(error.filename)) if isinstance(error.filename, (str, bytes, os.PathLike)) else None
    if path is None or error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS) or not path.is_relative_to(STATE):
        return ""
    said = f"The workbook cannot write to {display_path(path)} ({error.strerror})."
    if error.errno == errno.EROFS or not (STATE.exists() or os.access(ROOT, os.W_OK)):
        return f"{said} It keeps its files in the checkout. Copy it: cp -R {shlex.quote(str(ROOT))} ~/workbook"
    command = f"sudo chown -R $USER {shlex.quote(str(STATE))}"
    return f"{said} Another user has probably run it, such as root. Take the folder over: {command}"
