"""What happened in a rehearsal, in order: a line for each moment, to be read in a minute."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from checks.kit.service.app import Response

WIDTH = 96
"""Columns of a line; with the indent of a verdict it is less than 100."""

MAX_LINES = 40
SERVED, REFUSED, FAILED = "▪", "○", "✗"
LEGEND = f"{SERVED} served   {REFUSED} refused with 503 and Retry-After   {FAILED} failed"


@dataclass(frozen=True, slots=True)
class Sent:
    """A request of the traffic, and what came back; `response` is None if nothing did."""

    what: str
    response: Response | None

    @property
    def mark(self) -> str:
        if self.response is not None and self.response.ok:
            return SERVED
        return REFUSED if self.response is not None and is_refused(self.response) else FAILED

    def __str__(self) -> str:
        return str(self.response) if self.response is not None else f"{self.what} got no response."


def is_refused(response: Response) -> bool:
    """Whether the client is told to come again."""
    return response.status == 503 and "retry-after" in response.headers


class Timeline:
    """Lines with a number. Those of traffic show each request as a mark."""

    def __init__(self) -> None:
        self._moments: list[tuple[str, str]] = []

    def note(self, what: str) -> None:
        """Something happened."""
        self._moments.append((what, ""))

    def sent(self, what: str, sent: Iterable[Sent]) -> None:
        """So many requests had these outcomes."""
        marks = "".join(one.mark for one in sent)
        self._moments.append((f"{what}: {told(marks)}", marks))

    def lines(self) -> list[str]:
        """At most MAX_LINES, the last one of them the legend where there is traffic."""
        moments = self._moments
        first = max(0, len(moments) - MAX_LINES + 2)
        lines = [f"… {first} moments before"] if first else []
        for number, (what, marks) in enumerate(moments[first:], first + 1):
            room = WIDTH - 5 - min(len(marks), 30)
            text = what if len(what) <= room else f"{what[: room - 1]}…"
            lines.append(f"{number:>3}  {text:<{room}}{marks[:30]}".rstrip())
        return [*lines, LEGEND] if any(marks for _, marks in moments) else lines


def told(marks: Sequence[str]) -> str:
    """`24 requests: 20 served, 4 failed`."""
    counts = Counter(marks)
    names = {SERVED: "served", REFUSED: "refused", FAILED: "failed"}
    return f"{len(marks)} requests: " + (
        ", ".join(f"{counts[mark]} {name}" for mark, name in names.items() if counts[mark]) or "none"
    )
