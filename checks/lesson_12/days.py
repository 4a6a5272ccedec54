"""Receipts at moments that are on different days in different zones."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from checks.kit.service.app import App
    from checks.kit.testbed.shop import Shop

CASES = {
    "America/New_York": ("2026-03-08", "2025-11-02"),
    "Europe/Berlin": ("2026-03-29", "2025-10-26"),
    "Asia/Kathmandu": ("2026-01-01",),
    "Australia/Lord_Howe": ("2026-04-05", "2025-10-05"),
    "America/Havana": ("2025-11-02", "2025-03-09"),
    "Africa/Cairo": ("2024-04-26", "2024-10-31"),
    "Pacific/Apia": ("2011-12-30",),
    "Pacific/Kiritimati": ("2026-01-01",),
    "Etc/GMT+12": ("2026-01-01",),
}
"""Zones, and days on which clocks change, or on which a year begins.

In Havana midnight comes twice on 2 November 2025, and not at all on 9 March. In Cairo it does not come on 26 April
2024, and the last hour of 31 October comes twice. On Lord Howe clocks change by half an hour. Apia had no 30 December
2011.
"""

NOTES = {
    "America/Havana": "on 2 November 2025 midnight came twice there",
    "Pacific/Apia": "there was no 30 December 2011",
}
"""What a verdict says about a zone."""

AROUND = (-1, -0.000001, 0, 1, 1799, 1800, 1801, 3599, 3600, 3601)
"""Seconds from a moment at which something may change."""


def batch(*moments: str) -> dict[str, Any]:
    """The body of a request with a receipt for each of these times, of different tills and sums."""
    return {
        "receipts": [
            {"till": f"Till {number}", "sold_at": moment, "cents": 100 + 7 * number}
            for number, moment in enumerate(moments)
        ]
    }


def moments(zone: str, day: str) -> list[datetime]:
    """Moments around each midnight and each change of the clock, from two days before a day on to three days after."""
    there, near = ZoneInfo(zone), datetime.fromisoformat(f"{day}T00:00:00+00:00")
    hours = [near + timedelta(minutes=15 * n) for n in range(-4 * 48, 4 * 72)]
    turns = [
        after
        for before, after in pairwise(hours)
        if before.astimezone(there).date() != after.astimezone(there).date()
        or before.astimezone(there).utcoffset() != after.astimezone(there).utcoffset()
    ]
    return sorted({turn + timedelta(seconds=second) for turn in turns for second in AROUND})


def sales(zone: str, sold: Iterable[tuple[datetime, int]]) -> dict[date, tuple[int, int]]:
    """How many receipts each day of this zone has, and their sum in cents."""
    found: dict[date, list[int]] = defaultdict(list)
    for moment, cents in sold:
        found[moment.astimezone(ZoneInfo(zone)).date()].append(cents)
    return {day: (len(each), sum(each)) for day, each in found.items()}


def window(day: str, days: int) -> tuple[date, date]:
    """So many days around a day."""
    middle = date.fromisoformat(day)
    return middle - timedelta(days=days // 2), middle + timedelta(days=days // 2)


def as_sent(moment: datetime, number: int) -> str:
    """The moment with an offset, another one for each number."""
    from datetime import timezone

    offset = timezone(timedelta(minutes=15 * (number * 7 % 104 - 48)))
    return (
        (moment if number % 3 == 0 else moment.astimezone(offset))
        .astimezone(UTC if number % 3 == 0 else offset)
        .isoformat()
    )


async def in_another_zone(launch: Callable[..., Awaitable[App]], shop: Shop, zone: str | None) -> App:
    """An app whose database and whose process have this time zone; None: as they are."""
    if zone is None:
        return await launch()
    name = await shop.value("SELECT quote_ident(current_database())")
    await shop.execute(f"ALTER DATABASE {name} SET timezone = '{zone}'", step=f"the time zone of the server is {zone}")
    return await launch(env={"TZ": zone})
