"""What can be wrong with a server, said in one sentence with the next step."""

from __future__ import annotations


class PostgresUnavailable(Exception):  # noqa: N818, RUF100
    """No server that the workbook could use; the message names the cause and the command to type."""
