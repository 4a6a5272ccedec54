"""A plugin of pytest for SQLAlchemy's tests, on a server without the extensions citext and hstore.

The tests create both before the first one and would end there. Without them, those that need one say so and are
skipped; the binaries of the embedded server have neither.
"""

from __future__ import annotations

import pytest


@pytest.hookimpl(tryfirst=True)  # before SQLAlchemy's own hook connects
def pytest_sessionstart() -> None:
    from sqlalchemy.dialects.postgresql import provision

    provision._extensions.clear()
