"""Numbers in sentences."""

from __future__ import annotations


def plural(count: int, singular: str, many: str = "") -> str:
    """`1 order`, `2 orders`; `many` is the plural where it is not the singular with an s."""
    return f"{count} {singular if count == 1 else many or f'{singular}s'}"
