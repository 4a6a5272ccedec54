"""Pages that everybody reads are made once, and not for each visitor of the sale."""

from collections.abc import Awaitable, Callable, Hashable
from time import monotonic
from typing import Generic, TypeVar

T = TypeVar("T")


class Remembered(Generic[T]):
    """What was made in the last `seconds`, by its key."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.made: dict[Hashable, tuple[float, T]] = {}

    async def get(self, key: Hashable, make: Callable[[], Awaitable[T]]) -> T:
        at, value = self.made.get(key, (0.0, None))
        if value is None or monotonic() - at > self.seconds:
            value = await make()
            self.made[key] = (monotonic(), value)
        return value
