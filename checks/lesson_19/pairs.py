"""How much longer one app takes than another, whatever else the machine does meanwhile."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from checks.kit.report import expect
from checks.kit.service.app import NoResponse
from checks.lesson_19.traffic import patiently

if TYPE_CHECKING:
    from checks.kit.service.app import App, Response
    from checks.lesson_19.traffic import Request

PAIRS, WARM = 30, 5


async def paired(app: App, reference: App, request: Request, pairs: int = PAIRS) -> tuple[float, float]:
    """Seconds of the faster half of the requests to each. The two take turns, so both meet the same machine."""
    method, path, options = request
    times: dict[App, list[float]] = {app: [], reference: []}
    for number in range(WARM + pairs):
        for one, of_it in times.items():
            began = time.perf_counter()
            response = await _asked(one, method, path, options)
            if number >= WARM:
                of_it.append(time.perf_counter() - began)
            expect(
                response.ok,
                f"{response}. Expected: a success, in the app and in the reference.",
                because="Nobody can buy.",
                section="Catalogue",
            )
    ours, its = (sum(sorted(of_it)[: pairs // 2]) for of_it in times.values())
    return ours, its


async def _asked(app: App, method: str, path: str, options: dict[str, Any]) -> Response:
    """The response; once more if a connection broke, as it does on a machine that has no time."""
    try:
        return await patiently(app, method, path, **options)
    except NoResponse:
        return await patiently(app, method, path, **options)
