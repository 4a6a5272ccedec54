"""Each line that the service writes is one JSON object, whether our code writes it or a library."""

import json
import logging
import sys
from datetime import UTC, datetime


class CurrentRequest:
    """The id of the request at hand."""

    def __init__(self) -> None:
        self.id: str | None = None

    def set(self, name: str) -> None:
        self.id = name

    def get(self) -> str | None:
        return self.id


request_id = CurrentRequest()


class AsJson(logging.Formatter):
    """A record with `extra={"fields": {...}}` has these fields besides the usual ones."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "level": record.levelname.lower(),
            "logger": record.name,
            "request_id": request_id.get(),
            **getattr(record, "fields", {}),
        }
        line = (
            f'{{"time": "{datetime.fromtimestamp(record.created, UTC).isoformat()}", "event": "{record.getMessage()}", '
        )
        line += json.dumps(fields, default=str)[1:]
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def configure_logs() -> None:
    """One handler, at the root."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(AsJson())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
