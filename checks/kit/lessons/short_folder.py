"""Where folders for Unix sockets can be: the path of a socket has about 100 bytes."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path

MAX_SOCKET_FOLDER = 80
"""Bytes of the path of a folder that leave room for the name of a socket. The limit is 104 on macOS, 108 on Linux."""

MAX_PARENT = 60
"""Bytes of the path of a folder that leave room for one of ours in it, and for the socket."""


def fits_sockets(folder: Path) -> bool:
    """Whether sockets can be made in `folder`. Bytes count and not characters: a letter may have several."""
    return len(os.fsencode(folder)) <= MAX_SOCKET_FOLDER


def takes_sockets(folder: Path) -> bool:
    """Whether the file system has sockets: that of a Windows drive in WSL has none, nor have many network drives."""
    path = folder / f".probe-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.bind(os.fspath(path))
        except OSError:
            return False
        finally:
            path.unlink(missing_ok=True)
    return True


def short_temporary_folder() -> Path:
    """The folder for temporary files; /tmp where that of TMPDIR has a path that is no good for sockets."""
    folder = Path(tempfile.gettempdir())
    # to PostgreSQL a comma begins another folder
    unfit = len(os.fsencode(folder)) > MAX_PARENT or "," in str(folder)
    return Path("/tmp") if unfit and os.name == "posix" else folder
