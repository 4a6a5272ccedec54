"""Each line that the service writes is one JSON object, whether our code writes it or a library."""

import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The id of the request at hand. Each request has a context of its own, so overlapping ones do not share it."""


class AsJson(logging.Formatter):
    """A record with `extra={"fields": {...}}` has these fields besides the usual ones."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            "request_id": request_id.get(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)  # a traceback without the values of variables
        return json.dumps(line, default=str)


def configure_logs() -> None:
    """One handler, at the root. The server's loggers have handlers of their own, which write plain text."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(AsJson())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for name in ("uvicorn", "uvicorn.error"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    logging.getLogger("uvicorn.access").disabled = True  # its lines hold the query, and ours say more
