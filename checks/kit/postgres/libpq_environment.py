"""Variables of the environment that libpq and asyncpg read."""

from __future__ import annotations

import os
from collections.abc import MutableMapping


def drop_libpq_variables(environ: MutableMapping[str, str] = os.environ) -> None:
    """Removes PGHOST, PGSSLMODE, PGSERVICE and all the others: they are meant for another server than ours.

    We say host, user, password and so on with each connection, but not what these variables may add to it.
    """
    for name in list(environ):
        if name.startswith("PG"):
            del environ[name]
