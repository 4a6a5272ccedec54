"""Workers of the learner's, and waits for the mail that they send."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from checks.kit.testbed.outside_service import CALL_TIMEOUT

if TYPE_CHECKING:
    from checks.kit.service.process import RunningProcess
    from checks.kit.testbed.outside_service import Call, HeldCalls, OutsideService
    from checks.kit.testbed.testbed import Testbed


class Workers:
    """Starts `python -m app.worker`, with settings of the check's own."""

    def __init__(self, testbed: Testbed, gateway: OutsideService) -> None:
        self._testbed = testbed
        self._gateway = gateway
        self._news = asyncio.Event()
        gateway.on_end.append(self._note)

    def _note(self, _: Call) -> None:
        self._news.set()

    async def start(self, **env: str | None) -> RunningProcess:
        """A worker that has just been started."""
        return await self._testbed.start("app.worker", env=env, name="worker")

    async def begun(self, worker: RunningProcess, held: HeldCalls) -> bool:
        """Returns True when a call is held, and False if the worker has ended before, or if there is none for long."""
        arriving = asyncio.ensure_future(held.arrived())
        either: set[asyncio.Future[object]] = {arriving, worker.exit}  # type: ignore[arg-type]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        arriving.cancel()
        await asyncio.gather(arriving, return_exceptions=True)
        return bool(held.calls)

    async def sent(self, worker: RunningProcess, *orders: int) -> bool:
        """Returns True when the gateway has accepted a mail for each of these orders.

        False if the worker has ended before, or if the gateway has got no call for ten seconds.
        """
        wanted = set(orders)
        while not wanted <= accepted(self._gateway):
            self._news.clear()
            waiting = asyncio.ensure_future(self._news.wait())
            try:
                either: set[asyncio.Future[object]] = {waiting, worker.exit}  # type: ignore[arg-type]
                done, _ = await asyncio.wait(either, timeout=CALL_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
            finally:
                waiting.cancel()
            if waiting not in done:
                return wanted <= accepted(self._gateway)
        return True

    @staticmethod
    def order_of(call: Call) -> int:
        """The id of the order that a mail confirms; 0 if it names none."""
        return order_of(call)


def accepted(gateway: OutsideService) -> set[int]:
    """The orders about which the gateway has accepted a mail."""
    return {order_of(call) for call in gateway.calls if call.answer is not None and call.answer.status < 300}


def order_of(call: Call) -> int:
    """The id of the order that a mail confirms; 0 if it names none."""
    try:
        return int(call["data"]["order_id"])
    except (KeyError, TypeError, ValueError):
        return 0
