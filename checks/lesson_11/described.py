"""What an OpenAPI document says about the responses that came."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from checks.lesson_11.shape import PROBLEM

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.kit.service.app import Response

ORDER_AFTER_ALL = "402"
"""The one status of an error that comes with an order: a check-out whose payment was refused."""


PROMISED = ("type", "title", "status", "detail")
"""The members of a problem that the ticket names. Others are left open, and so is their description."""

NOTHING = {"7f3a": [[{}]]}
"""What no field of the shop holds."""


class Document:
    """An OpenAPI document, as far as it describes responses."""

    def __init__(self, raw: Any) -> None:
        import jsonschema_rs  # of Schemathesis

        self.raw = raw
        self._validator_for = jsonschema_rs.Draft202012Validator

    def operation(self, method: str, path: str) -> dict[str, Any] | None:
        """The description of an endpoint; `path` has values where the document has names."""
        found = None
        for template, operations in self.raw.get("paths", {}).items():
            pattern = re.sub(r"\\\{[^}]*\\\}", "[^/]+", re.escape(template))
            if re.fullmatch(pattern, path.partition("?")[0]) and method.lower() in operations:
                found = operations[method.lower()] if found is None or "{" not in template else found
        return found

    def parameters(self, method: str, path: str) -> set[str]:
        """The names of what an endpoint takes: described there, at its path, or among the components."""
        shared = self.raw.get("paths", {}).get(path, {}).get("parameters", [])
        own = (self.operation(method, path) or {}).get("parameters", [])
        return {str(self._resolved(one).get("name")) for one in (*shared, *own)}

    def false_promises(self) -> list[str]:
        """Errors that are described in another form than that of a problem."""
        return [
            f"{method.upper()} {path} promises {', '.join(kinds)} for {status}"
            for path, operations in self.raw.get("paths", {}).items()
            for method, operation in operations.items()
            if isinstance(operation, dict)
            for status, said in operation.get("responses", {}).items()
            if (status[0] in "45" or status == "default") and status != ORDER_AFTER_ALL
            if (kinds := [kind for kind in self._content(said) if kind != PROBLEM])
        ]

    def objection(self, method: str, path: str, response: Response) -> str:
        """In which way a response is not as described; empty if it is."""
        operation = self.operation(method, path)
        if operation is None:
            return "The document does not have this endpoint."
        responses = operation.get("responses", {})
        status = str(response.status)
        said = responses.get(status, responses.get(f"{status[0]}XX", responses.get("default")))
        if said is None:
            return f"The document has no status {status} for it, only {', '.join(responses)}."
        content = self._content(said)
        if not response.text:
            return "" if response.status == 204 or not content else "The body is empty, and the document describes one."
        kind = _bare(response.headers.get("content-type", ""))
        if kind not in content:
            return f"The document has no {kind} for status {status}, only {', '.join(content) or 'a description'}."
        if not kind.endswith("json"):
            return ""
        return self._body(content[kind].get("schema", True), response)

    def _body(self, schema: Any, response: Response) -> str:
        body = json.loads(response.text)
        whole = {
            "$ref": "#/$defs/described",
            "$defs": {"described": schema},
            "components": self.raw.get("components", {}),
        }
        validator = self._validator_for(whole)
        for error in validator.iter_errors(body):
            return f"The body is not as described: {error.message[:200]}"
        if validator.is_valid(_nonsense(body)):
            return f"The description of the body for status {response.status} fits anything, so it says nothing."
        for place, changed in _with_nonsense(body if response.ok else {k: body[k] for k in PROMISED if k in body}):
            if validator.is_valid(changed if response.ok else body | changed):
                return f"The description of the body for status {response.status} does not say what `{place}` is."
        return ""

    def _content(self, said: Any) -> dict[str, Any]:
        """What a response is described to hold, by its media type without a charset."""
        return {_bare(kind): described for kind, described in self._resolved(said).get("content", {}).items()}

    def _resolved(self, said: Any) -> Any:
        while "$ref" in said:
            node = self.raw
            for step in said["$ref"].removeprefix("#/").split("/"):
                node = node[step.replace("~1", "/").replace("~0", "~")]
            said = node
        return said


def _bare(kind: str) -> str:
    return kind.partition(";")[0].strip().lower()


def _nonsense(body: Any) -> Any:
    """Something like the body, in which each field holds nonsense."""
    if isinstance(body, dict):
        return dict.fromkeys(body, NOTHING)
    return [NOTHING]


def _with_nonsense(body: Any) -> Iterator[tuple[str, Any]]:
    """Copies of a body with nonsense in place of one value each, and where; of a list its first item stands for all."""
    if isinstance(body, dict):
        for name, value in body.items():
            for place, inner in _with_nonsense(value):
                yield f"{name}.{place}".rstrip("."), body | {name: inner}
    elif isinstance(body, list) and body:
        for place, inner in _with_nonsense(body[0]):
            yield place, [inner, *body[1:]]
    elif not isinstance(body, list):
        yield "", NOTHING
