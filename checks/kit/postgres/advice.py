"""What to do when the embedded server cannot be set up. Looks at the machine: messages change and are translated."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from pathlib import Path

NEEDED_SPACE = 100 << 20
"""Bytes that the data of the embedded server take, with room for a few databases."""

OTHER_SERVER = "set DATABASE_URL to a server of your own"

COPIED = "binaries"
"""The folder beside the data with a copy of the programs, where root's server may not reach the original."""

BREAKS_INITDB = '"$`'
"""Characters that initdb does not quote when it runs the other programs of PostgreSQL through a shell."""


def advice(home: Path, programs: Path | None = None) -> str:
    """A sentence with the next step. `home` is where the data should be, `programs` the folder of the binaries."""
    if not _has_name():
        return (
            f"The user {os.geteuid()} has no entry in /etc/passwd, and PostgreSQL asks for one. Run the workbook as a "
            f"user that has one, or {OTHER_SERVER}."
        )
    with contextlib.suppress(OSError):
        if shutil.disk_usage(_existing(home)).free < NEEDED_SPACE:
            return "The disk is full: free some space. Look with: df -h"
    if (home / COPIED).exists() and runs_no_programs(home):
        return (
            "Its file system runs no programs (noexec), and root's server needs a copy of PostgreSQL's there. Name a "
            "folder elsewhere that everybody may enter: export WORKBOOK_DATA=/opt/bookshop; or do not run it as root."
        )
    if found := sorted(
        {character for path in (home, programs) for character in BREAKS_INITDB if character in str(path)}
    ):
        return (
            f"PostgreSQL's initdb cannot run in a path with {' or '.join(found)}. Move the checkout to another folder."
        )
    if not os.access(_existing(home), os.W_OK):
        return f"You may not write there. Take the folder over (chown), or name another one: {_other_folder()}"
    return f"The file system may lack what a server needs (locks, sockets, rights). Use a local disk: {_other_folder()}"


def runs_no_programs(folder: Path) -> bool:
    """Whether the file system of a folder is mounted with noexec."""
    return sys.platform != "win32" and bool(os.statvfs(folder).f_flag & getattr(os, "ST_NOEXEC", 0))


def _has_name() -> bool:
    if sys.platform == "win32":
        return True
    import pwd

    try:
        pwd.getpwuid(os.geteuid())
    except KeyError:
        return False
    return True


def _existing(folder: Path) -> Path:
    return next((step for step in (folder, *folder.parents) if step.exists()), folder)


def _other_folder() -> str:
    return f"export WORKBOOK_DATA=~/.bookshop; or {OTHER_SERVER}."
