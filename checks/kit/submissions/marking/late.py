"""What being late costs: a part of the points for each day begun after the due time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, time, timedelta
from fractions import Fraction

from checks.kit.lessons.errors import WorkbookError

DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class LatePolicy:
    """`percent` of the points are taken off for each day begun, and at most `at_most` percent. `due` has a zone."""

    due: datetime
    percent: int
    at_most: int = 100

    def days(self, handed_in: datetime) -> int:
        """How many days late that is: 0 if it is in time, 1 from the first second after `due`."""
        return max(0, -((self.due - handed_in) // DAY))

    def taken_off(self, days: int) -> int:
        """The percent that so many days cost."""
        return min(days * self.percent, self.at_most)

    def kept(self, days: int) -> Fraction:
        """The part of the points that is left after so many days."""
        return 1 - Fraction(self.taken_off(days), 100)


def parse_due(text: str) -> datetime:
    """`2026-11-30`, which is the end of that day, or `2026-11-30 18:00`, in this machine's zone unless it names one.

    Raises WorkbookError.
    """
    try:
        due = datetime.fromisoformat(text.strip())
        if len(text.strip()) <= len("2026-11-30"):
            due = datetime.combine(due, time(23, 59, 59))
        return due.astimezone() if due.tzinfo is None else due
    except (ValueError, OverflowError):
        raise WorkbookError(f"--due {text}: write a day or a time, such as 2026-11-30 or 2026-11-30T18:00.") from None
