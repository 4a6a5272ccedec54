"""A file system that passes everything on to another folder, but for what it lacks. It runs until it is unmounted.

    python poor_file_system.py FOLDER MOUNTPOINT LACKS...

LACKS is `flock` (as NFS without its lock daemon), `chmod` (as a Windows drive in WSL) or `sockets` (as many network
file systems).
"""

from __future__ import annotations

import errno
import functools
import os
import sys
from collections.abc import Callable
from typing import Any

import mfusepy


def stat_of(path: str) -> dict[str, Any]:
    found = os.lstat(path)
    names = ("st_atime_ns", "st_ctime_ns", "st_gid", "st_mode", "st_mtime_ns", "st_nlink", "st_size", "st_uid")
    return {name.removesuffix("_ns"): getattr(found, name) for name in names}


class Poor(mfusepy.Operations):  # type: ignore[misc]
    use_ns = True

    def __init__(self, root: str, lacks: set[str]) -> None:
        self._root = root
        self._lacks = lacks
        for name in ("readlink", "rmdir", "unlink"):
            setattr(self, name, self._plain(getattr(os, name)))
        if "flock" in lacks:  # otherwise the kernel keeps the locks itself
            self.flock = self._no_locks

    def _at(self, path: str) -> str:
        return self._root + path

    def _plain(self, function: Callable[[str], Any]) -> Callable[[str], Any]:
        return functools.wraps(function)(lambda path: function(self._at(path)) or 0)

    def _own(self, path: str) -> None:
        user, group, _ = mfusepy.fuse_get_context()
        os.lchown(self._at(path), user, group)

    def _no_locks(self, path: str, handle: int, operation: int) -> int:
        raise mfusepy.FuseOSError(errno.ENOLCK)

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        return stat_of(self._at(path))

    def readdir(self, path: str, fh: int) -> list[str]:
        return [".", "..", *os.listdir(self._at(path))]

    def chmod(self, path: str, mode: int) -> int:
        if "chmod" in self._lacks:
            raise mfusepy.FuseOSError(errno.EPERM)
        os.chmod(self._at(path), mode)
        return 0

    def chown(self, path: str, uid: int, gid: int) -> int:
        os.lchown(self._at(path), uid if uid < 2**31 else -1, gid if gid < 2**31 else -1)
        return 0

    def mkdir(self, path: str, mode: int) -> int:
        os.mkdir(self._at(path), mode)
        self._own(path)
        return 0

    def mknod(self, path: str, mode: int, dev: int) -> int:
        if "sockets" in self._lacks:
            raise mfusepy.FuseOSError(errno.EPERM)
        os.mknod(self._at(path), mode, dev)
        self._own(path)
        return 0

    def symlink(self, target: str, source: str) -> int:
        os.symlink(source, self._at(target))
        self._own(target)
        return 0

    def rename(self, old: str, new: str) -> int:
        os.rename(self._at(old), self._at(new))
        return 0

    def create(self, path: str, mode: int, fi: Any = None) -> int:
        made = os.open(self._at(path), os.O_RDWR | os.O_CREAT, mode)
        self._own(path)
        return made

    def open(self, path: str, flags: int) -> int:
        return os.open(self._at(path), flags & ~os.O_APPEND)  # the kernel says where to write

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        return os.pread(fh, size, offset)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        return os.pwrite(fh, data, offset)

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        os.truncate(self._at(path), length)
        return 0

    def release(self, path: str, fh: int) -> int:
        os.close(fh)
        return 0

    def utimens(self, path: str, times: tuple[int, int] | None = None) -> int:
        os.utime(self._at(path), ns=times)
        return 0

    def statfs(self, path: str) -> dict[str, int]:
        found = os.statvfs(self._root)
        names = ("f_bavail", "f_bfree", "f_blocks", "f_bsize", "f_frsize", "f_namemax")
        return {name: getattr(found, name) for name in names}


class Mount(mfusepy.FUSE):  # type: ignore[misc]
    def flock(self, path: bytes, info: Any, operation: int) -> int:
        """The library knows this operation, and has no way yet to hand it on."""
        result: int = self.operations.flock(path.decode(), 0, operation)
        return result


if __name__ == "__main__":
    os.umask(0)
    # `allow_other`: root's PostgreSQL has an account of its own
    others = {"allow_other": True} if os.geteuid() == 0 else {}
    operations = Poor(os.path.realpath(sys.argv[1]), set(sys.argv[3:]))
    Mount(operations, sys.argv[2], foreground=True, nothreads=True, default_permissions=True, **others)
