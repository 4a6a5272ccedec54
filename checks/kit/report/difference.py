"""How what is stored and what was returned differ, field by field."""

from __future__ import annotations

from collections.abc import Mapping


def difference(stored: Mapping[str, object], returned: Mapping[str, object]) -> str:
    """`isbn: stored '080442957X', returned '0-8044 2957-x'`, a line for each field that differs; empty if none does.

    A field that one side has not is shown as `nothing`.
    """
    names = [*stored, *(name for name in returned if name not in stored)]
    return "\n".join(
        f"{name}: stored {_shown(stored, name)}, returned {_shown(returned, name)}"
        for name in names
        if name not in stored or name not in returned or stored[name] != returned[name]
    )


def _shown(row: Mapping[str, object], name: str) -> str:
    return repr(row[name]) if name in row else "nothing"
