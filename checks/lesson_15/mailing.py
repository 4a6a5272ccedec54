"""A worker that has mail to send."""

import asyncio


async def sent(gateway, worker, number):
    """Returns True when the gateway has got so many calls; False if the worker ends, or none comes for long."""
    known = -1
    while known < len(gateway.calls) < number:
        known = len(gateway.calls)
        receiving = asyncio.ensure_future(gateway.received(known + 1))
        await asyncio.wait({receiving, worker.exit}, return_when=asyncio.FIRST_COMPLETED)
        receiving.cancel()
        await asyncio.gather(receiving, return_exceptions=True)
    return len(gateway.calls) >= number
