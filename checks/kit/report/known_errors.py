"""Well-known exceptions whose own words do not help: a sentence for each, shown beside the line that raised it."""

from __future__ import annotations

KNOWN_ERRORS = {
    "MissingGreenlet": "SQLAlchemy had to send a statement here, and this is a place where nothing can be awaited: an "
    "attribute was read that is not loaded, or not any more, such as after a commit. Lessons 02 and 03 are about this.",
    "already begun on this Session": "This session has a transaction already: its first statement began it. "
    "`session.begin()` works only before any other use of the session; after that, end with `session.commit()`.",
    "closed transaction inside context manager": "The block `async with session.begin()` commits at its end. After a "
    "commit() or rollback() inside the block nothing more can be done in it.",
    "IllegalStateChangeError": "Two tasks used one session at the same time. Each task needs a session of its own.",
    "another operation is in progress": "Two tasks used one connection at the same time. Each task needs a "
    "connection of its own.",
    "concurrent operations are not permitted": "Two tasks used one session at the same time. Each task needs a "
    "session of its own.",
    "Session is already flushing": "Two tasks used one session at the same time. Each task needs a session of its own.",
    "PendingRollbackError": "A statement failed in this session before. It accepts nothing more until your code calls "
    "rollback(). A ROLLBACK that the flush has sent by itself does not count.",
    "DetachedInstanceError": "The object's session is closed, so that it can load nothing more. Load what you need "
    "while the session is open.",
    "attached to a different loop": "A connection was opened in one event loop and used in another one.",
    "QueuePool limit": "All connections of the pool were in use for as long as pool_timeout allows.",
}
"""By a part of the exception's last line. Only for help: no verdict depends on these texts."""


def explain_error(error: str) -> str:
    """What the last line of a traceback means; empty for an exception that is not in the list."""
    return next((text for part, text in KNOWN_ERRORS.items() if part in error), "")
