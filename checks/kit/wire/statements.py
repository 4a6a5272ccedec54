"""What a statement is, and whose it is: the author's, the driver's, or transaction control."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from checks.kit.wire.bound import Bound

CONTROL = frozenset(
    [
        "BEGIN",
        "START",
        "COMMIT",
        "END",
        "ROLLBACK",
        "ABORT",
        "SAVEPOINT",
        "RELEASE",
        "SET",
        "SHOW",
        "RESET",
        "DISCARD",
        "DEALLOCATE",
        "PREPARE",
    ]
)
"""Verbs that steer a session or a transaction and touch no data."""

CHANGING = frozenset(
    ["INSERT", "UPDATE", "DELETE", "MERGE", "COPY", "TRUNCATE", "CALL", "DO", "CREATE", "ALTER", "DROP"]
)
"""Verbs that make something durable when they run outside an explicit transaction."""

MAX_CACHED = 2000
"""Characters up to which what was found out about a text is kept: a cache of 4096 long texts would be 256 MB."""

# what may precede the first keyword: white space, comments, an empty statement, a parenthesis as in (SELECT ...) UNION
_COMMENT = re.compile(r"\s+|--[^\n]*(?:\n|$)|/\*.*?\*/|;|\(", re.DOTALL)
_WORD = re.compile(r"[A-Za-z]+")
# WITH gone AS (DELETE FROM ...) SELECT ...: the verb is WITH, and it changes data all the same
_CHANGING_CTE = re.compile(r"\b(?:INSERT\s+INTO|UPDATE|DELETE\s+FROM|MERGE\s+INTO)\b", re.IGNORECASE)
_DRIVER = re.compile(
    r"""
      \A\s*;?\s*\Z                                       # SQLAlchemy's pre-ping on asyncpg
    | \A\s*select\s+pg_catalog\.version\(\)              # SQLAlchemy, first connection
    | \A\s*select\s+current_schema\(\)
    | \A\s*show\s+(?:transaction\s+isolation\s+level|standard_conforming_strings)
    | \bpg_catalog\.pg_type\b | \bpg_type\s+(?:AS\s+)?t\b | \btypeinfo_tree\b   # types, asyncpg and psycopg
    | \A\s*SELECT\s+(?:current_setting|set_config)\('jit'  # asyncpg, before it looks for types
    | \A\s*SELECT\s+pg_advisory_unlock_all\(\)           # asyncpg's pool, on release
    """,
    re.IGNORECASE | re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class ServerError:
    """What PostgreSQL sent instead of a result: a SQLSTATE, such as "23505", and the message in its language."""

    sqlstate: str
    message: str


@dataclass(slots=True, eq=False)
class Statement:
    """One execution of a statement.

    `connection` is the number of its Connection; `parameters` says how many were bound. `started` and `finished` are
    seconds of time.perf_counter, at the proxy; `finished` is None until the response is complete. `rows` and `size`
    count what the server sent, `size` in bytes. `tag` is its summary, such as "UPDATE 3"; "; " joins those of several
    commands. `in_transaction`: an explicit transaction was open, or on its way, when the statement was sent. `simple`:
    sent as a simple query, which may hold several commands. `skipped`: PostgreSQL ignored it after an error before it.
    `held`: a Hold stopped it. `commits`: makes work durable, that is, a COMMIT of a transaction that changed
    something, or a change outside an explicit transaction. `continues`: fetches more rows of a statement before it,
    through a cursor. `process` is the name of the process that sent it, as in the verdict: `app`, `app.worker`.
    `bound` holds the parameters for the fixture `explain`, None where there are none or they were not kept.
    """

    connection: int
    text: str
    started: float
    parameters: int = 0
    in_transaction: bool = False
    simple: bool = False
    finished: float | None = None
    rows: int = 0
    size: int = 0
    tag: str = ""
    error: ServerError | None = None
    skipped: bool = False
    held: bool = False
    commits: bool = False
    continues: bool = False
    process: str = ""
    bound: Bound | None = field(default=None, repr=False)

    @property
    def verb(self) -> str:
        """The first keyword in capitals, comments left out; empty for an empty statement."""
        return _verb(self.text) if len(self.text) <= MAX_CACHED else _verb.__wrapped__(self.text)

    @property
    def driver(self) -> bool:
        """Sent by the driver or by SQLAlchemy for their own needs, not on behalf of the author."""
        return _is_driver(self.text) if len(self.text) <= MAX_CACHED else _is_driver.__wrapped__(self.text)

    @property
    def changes(self) -> bool:
        """Changes data or tables, as far as its text tells; a function called by SELECT hides what it does."""
        verb = self.verb
        return verb in CHANGING or (verb == "WITH" and bool(_CHANGING_CTE.search(self.text)))

    @property
    def data(self) -> bool:
        """What an author calls "my statement": reads or changes data."""
        return not self.driver and self.verb not in CONTROL


def committing(statement: Statement) -> bool:
    """For `wire.hold`: every statement that makes work durable."""
    return statement.commits


# An app sends the same few texts again and again, and each is asked about several times on the hot path.
@lru_cache(maxsize=4096)
def _verb(text: str) -> str:
    position = 0
    while match := _COMMENT.match(text, position):
        if match.end() == position:
            break
        position = match.end()
    word = _WORD.match(text, position)
    return word.group().upper() if word else ""


@lru_cache(maxsize=4096)
def _is_driver(text: str) -> bool:
    return _DRIVER.search(text) is not None
