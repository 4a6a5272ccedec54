"""When a process started: what tells it from a later one that has got its number."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Self

STARTTIME = 19
"""Where /proc/PID/stat has the start, counted from the first field after the name; see proc(5)."""


@dataclass(frozen=True, slots=True)
class ProcessStart:
    """A moment: on Linux in ticks since the boot named `boot`, elsewhere in seconds as the system has stored them.

    Not psutil's create_time on Linux, which moves when somebody sets the clock.
    """

    boot: str
    moment: float

    @classmethod
    def of(cls, pid: int) -> Self | None:
        """When the process `pid` started; None if there is none."""
        if sys.platform == "linux":
            with contextlib.suppress(OSError, ValueError, IndexError):
                # the name of the program, in parentheses, may hold blanks and parentheses
                fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2]
                boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
                return cls(boot, float(fields.split()[STARTTIME]))
            return None
        import psutil

        try:
            return cls("-", psutil.Process(pid).create_time())
        except psutil.Error:
            return None

    @classmethod
    def from_text(cls, text: str) -> Self:
        """The start that `str` wrote. Raises ValueError."""
        boot, moment = text.split()
        return cls(boot, float(moment))

    def __str__(self) -> str:
        return f"{self.boot} {self.moment!r}"

    def is_before(self, other: ProcessStart) -> bool:
        """Whether it is not later than `other`, and since the same boot."""
        return self.boot == other.boot and self.moment <= other.moment
