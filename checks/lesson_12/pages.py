"""How many pages of a large table a request reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.kit.report import expect

if TYPE_CHECKING:
    from checks.kit.service.app import App, Response
    from checks.kit.testbed.explain import Explain
    from checks.kit.wire import Recording, Wire

PART = 5
"""A request may read one page for each PART pages of the table."""

FEW = {
    "attributes": "The index knows what a document contains",
    "titles": "An index serves the expression that it was made of",
    "receipts": "BRIN needs rows in order",
}
"""Sections of the notebook."""


TRIES = 3
"""How often a request is sent to an app that has no database for it. To fill the tables keeps a machine busy."""


async def watched(app: App, wire: Wire, path: str, params: dict[str, str]) -> tuple[Response, Recording]:
    """The response to a request, and what it has sent to the database; of the last try, if there were several."""
    for _ in range(TRIES):
        with wire.watching() as seen:
            response = await app.get(path, params=params)
        if response.status != 503:
            break
    return response, seen


async def expect_few_pages(
    explain: Explain, seen: Recording, table: str, what: str, because: str, section: str
) -> None:
    """The statements in `seen` read few pages together, with a plan for their values and with one for all values."""
    pages = await explain.blocks(table)
    for generic in (False, True):
        read = sum(plan.buffers for plan in await explain.all(seen, generic=generic))
        expect(
            read > 0,
            f"{what} reads nothing from the database{' with a generic plan' if generic else ''}. Its response can only "
            f"come from what the process has remembered.",
            because="Other programs change the tables, and the response does not show it.",
            section=section,
        )
        expect(
            read <= pages / PART,
            f"{what} reads {read:,} pages{' with a generic plan' if generic else ''}. The table {table} has {pages:,}; "
            f"at most a fifth of that was expected.",
            because=because,
            section=section,
        )
