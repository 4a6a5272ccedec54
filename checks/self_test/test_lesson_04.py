"""What ticket 04 says of the solution, and no check of the lesson looks at."""

from __future__ import annotations

import pytest

from checks.kit.lessons.lesson import find_lesson
from checks.kit.testbed.runtime import Runtime
from checks.kit.testbed.testbed import open_testbed


@pytest.mark.parametrize("number", [4, 19])
async def test_a_silent_server_at_the_first_connection_of_an_engine_is_a_503(runtime: Runtime, number: int) -> None:
    lesson = find_lesson(number)
    async with open_testbed(runtime, lesson, lesson.solution) as testbed:
        app = await testbed.launch(workers=1)
        async with testbed.wire.hold("select pg_catalog.version()", limit=2) as held:
            request = app.start_request("GET", "/reports/sales", timeout=20)
            await held.wait_for()
            response = await request
        assert (response.status, response.headers.get("retry-after")) == (503, "2")
        assert (await app.get("/reports/sales")).status < 500
