"""The shape of an error: a problem as in RFC 9457."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from checks.kit.report import expect

if TYPE_CHECKING:
    from collections.abc import Collection

    from checks.kit.service.app import Response

PROBLEM = "application/problem+json"

SHAPE = "Errors come from many places"

UNREADABLE = (
    "A client has one function that reads errors. It finds no text here, and its user sees an empty dialog or a crash."
)


def expect_status(response: Response, statuses: Collection[int], what: str, because: str, section: str) -> None:
    """The response has one of these statuses."""
    expect(
        response.status in statuses,
        f"{what}: {response}. Expected: {' or '.join(map(str, sorted(statuses)))}.",
        because=because,
        section=section,
    )


def expect_problem(response: Response, what: str) -> None:
    """The response has the media type and the fields of a problem."""
    wrong = what_is_wrong(response)
    expect(
        not wrong,
        f"{what}: {response}. {wrong}",
        because=UNREADABLE,
        section=SHAPE,
    )


def what_is_wrong(response: Response) -> str:
    """In which way it is no problem; empty if it is one."""
    kind = response.headers.get("content-type", "none").partition(";")[0].strip().lower()
    if kind != PROBLEM:
        return f"Its content type is {kind}, not {PROBLEM}."
    body: Any = None
    try:
        body = json.loads(response.text)
    except ValueError:
        return "Its body is not JSON."
    if not isinstance(body, dict):
        return "Its body is not an object."
    for name in ("type", "title", "detail"):
        if not isinstance(body.get(name), str) or not body[name]:
            return f"Its member `{name}` is {body.get(name, 'missing')!r}, not a text."
    if body.get("status") != response.status or isinstance(body["status"], bool):
        return f"Its member `status` is {body.get('status', 'missing')!r}, not {response.status}."
    return ""
