"""Requests that Schemathesis makes out of an OpenAPI document, always the same ones for one document."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from checks.kit.lessons.paths import STATE

if TYPE_CHECKING:
    from checks.kit.service.app import App, Response
    from checks.kit.testbed.rows import Seeded

SEED = 11
VALID, INVALID = 3, 1
"""Requests for an endpoint that are as the document says, and that are not."""


DROPPED = frozenset(("content-length", "authorization", "user-agent", "accept-encoding", "host"))
"""Headers that the client sets, or that tell who is logged in."""

ZERO = timedelta()


class Broken(Exception):
    """The document is not valid, or Schemathesis cannot use it."""


class Generated:
    """A request, and what Schemathesis thinks about the response to it."""

    def __init__(self, case: Any, ids: Seeded, login: dict[str, str], number: int) -> None:
        import requests

        self.case = case
        if number % 2 == 0:  # ids that are there, in every second one
            _use_ids(case, ids)
        kwargs = case.as_transport_kwargs(base_url="http://app")
        for name in ("cookies", "timeout", "verify", "cert", "stream", "allow_redirects", "proxies"):
            kwargs.pop(name, None)
        self._prepared = requests.Request(**kwargs).prepare()
        self.headers = {k: v for k, v in self._prepared.headers.items() if k.lower() not in DROPPED}
        if number % 3:
            self.headers |= login

    @property
    def path(self) -> str:
        return str(self._prepared.path_url)

    @property
    def method(self) -> str:
        return str(self.case.method)

    async def send(self, app: App) -> Response:
        body = self._prepared.body
        content = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else body
        return await app.request(self.method, self.path, content=content, headers=self.headers)

    def objection(self, response: Response) -> str:
        """What Schemathesis finds wrong with the response; empty if nothing."""
        import httpx
        from schemathesis.checks import not_a_server_error
        from schemathesis.core.failures import FailureGroup
        from schemathesis.specs.openapi.checks import (
            content_type_conformance,
            response_schema_conformance,
            status_code_conformance,
        )

        came = httpx.Response(
            response.status,
            headers={k: v for k, v in response.headers.items() if k.lower() != "content-encoding"},
            content=response.text.encode(),
            request=httpx.Request(self.method, f"http://app{self.path}"),
        )
        came.elapsed = ZERO
        checks = [
            not_a_server_error,
            status_code_conformance,
            content_type_conformance,
            response_schema_conformance,
        ]
        try:
            self.case.validate_response(came, checks=checks)
        except FailureGroup as group:
            found = [f"{one.title}: {one.message}" for one in group.exceptions]
            return " ".join(" ".join(found).split())[:400]
        return ""


async def generated(raw: dict[str, Any], ids: Seeded, login: dict[str, str]) -> list[Generated]:
    """The requests for all endpoints of a document. Raises Broken."""
    cases = await asyncio.to_thread(lambda: list(_cases(raw)))
    return [Generated(case, ids, login, number) for number, case in enumerate(cases)]


def _cases(raw: dict[str, Any]) -> Iterator[Any]:
    import schemathesis
    from hypothesis.configuration import set_hypothesis_home_dir
    from hypothesis.internal.conjecture.providers import HypothesisProvider
    from hypothesis.internal.constants_ast import Constants
    from schemathesis import GenerationMode

    set_hypothesis_home_dir(STATE / "hypothesis")
    # Hypothesis looks for constants in all modules that are imported. These are not the same in each run.
    HypothesisProvider._local_constants = Constants()  # type: ignore[assignment, method-assign]
    try:
        schema = schemathesis.openapi.from_dict(raw)
        schema.validate()
        operations = [result.ok() for result in schema.get_all_operations()]
    except Exception as error:
        raise Broken(str(error).strip().partition("\n")[0]) from None
    for operation in operations:
        yield from _examples(operation.as_strategy(generation_mode=GenerationMode.POSITIVE), VALID)
    for operation in operations[::2]:  # wrong requests cost the most to make, and other checks send many
        yield from _examples(operation.as_strategy(generation_mode=GenerationMode.NEGATIVE), INVALID)


def _examples(strategy: Any, number: int) -> list[Any]:
    """The first `number` examples; none if there are none: an endpoint without parameters has no wrong requests."""
    import hypothesis
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis.errors import Unsatisfiable

    made: list[Any] = []

    @hypothesis.seed(SEED)
    @settings(
        max_examples=number,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(case: Any) -> None:
        made.append(case)

    with contextlib.suppress(Unsatisfiable):
        collect()
    return made[:number]


def _use_ids(case: Any, ids: Seeded) -> None:
    """Puts ids that are there into the path and the body of a request."""
    named = {"book": ids.books[0], "customer": ids.customers[1], "author": ids.authors[0], "order": ids.orders[0]}
    named |= {"recipient": ids.customers[1], "wishlist": ids.books[1], "checkout": ids.orders[0]}
    for name in re.findall(r"/(\w+)/\{(\w+)\}", case.operation.path):
        kind = name[0].removesuffix("s")
        if kind in named and name[1] in (case.path_parameters or {}):
            case.path_parameters[name[1]] = named[kind]
    case.body = _with_ids(case.body, {f"{kind}_id": number for kind, number in named.items()})


def _with_ids(value: Any, ids: dict[str, int]) -> Any:
    if isinstance(value, dict):
        return {k: ids[k] if k in ids and isinstance(v, int) else _with_ids(v, ids) for k, v in value.items()}
    return [_with_ids(one, ids) for one in value] if isinstance(value, list) else value
